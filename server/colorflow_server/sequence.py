"""ColorizeSequence: one client's pages in, their events out; never more than so many are under way."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2 as codes

from colorflow_rt.options import ColorizeOptions
from colorflow_rt.pool import Pool
from colorflow_server import convert
from colorflow_server.calls import CALL
from colorflow_server.events import END, Accepted, Cancelled, Encoded, Failed, Preview, Retrieved, Told
from colorflow_server.outbox import Outbox
from colorflow_server.pages import RETRY_S, Common, Inline, Shop, deadline_of, error_message, inline_item
from colorflow_server.pb import colorflow_pb2 as pb
from colorflow_server.status import Rejected, invalid, later

if TYPE_CHECKING:
    from colorflow_server.scheduler import Ticket

LONGEST_ID = 128
ORDER = "expected `start` once and first, then references, then pages and cancels"


@dataclass
class _UnderWay:
    ticket: "Ticket | None"  # None: it never got into the scheduler
    size: int


class Sequence:
    """One call. `run` ends when its client has closed its side and every page is through, or raises."""

    def __init__(self, shop: Shop, messages: AsyncIterator[Any], context: Any) -> None:
        self._shop, self._messages, self._context = shop, messages, context
        self._outbox = Outbox(shop.metrics.dropped.inc)
        self._room = asyncio.Semaphore(shop.config.max_pages_in_flight)
        self._under_way: dict[str, _UnderWay] = {}
        self._start: pb.SequenceStart | None = None
        self._references: list[tuple[str, convert.Source]] = []
        self._reference_bytes = 0
        self._common: Common | None = None

    async def run(self) -> None:
        """Serve the call. Rejected: the client does not keep to the protocol."""
        reader = asyncio.create_task(self._read())
        reader.add_done_callback(lambda _: self._outbox.wake())
        try:
            while not reader.done() or self._under_way:
                if reader.done() and reader.exception() is not None and not self._shop.draining.is_set():
                    break
                if event := await self._outbox.next():
                    await self._tell(*event)
            reader.result()
        finally:
            reader.cancel()
            self._leave()  # before anything is waited for: the call's cancellation may come while it ends by an error
            await asyncio.gather(reader, return_exceptions=True)

    def _leave(self) -> None:
        """Whatever ended the call: nothing of it runs on."""
        for page in self._under_way.values():
            if page.ticket is not None:
                self._shop.scheduler.cancel(page.ticket)
            self._shop.held.give(page.size)
        for id in self._under_way:
            self._shop.ended(id, Cancelled(0))
        self._shop.held.give(self._reference_bytes)

    # In

    async def _read(self) -> None:
        while (message := await self._next()) is not None:
            match message.WhichOneof("message"):
                case "start":
                    self._begin(message.start)
                case "reference":
                    self._reference(message.reference)
                case "page":
                    await self._page(message.page)
                case "cancel":
                    self._cancel(message.cancel.id)
                case _:
                    raise invalid("message", f"a message without content; {ORDER}")
        if self._start is None:
            raise invalid("start", f"the call ended before it began; {ORDER}")

    async def _next(self) -> Any | None:
        """The client's next message, None at its end. Rejected: it is idle for too long, or the server drains."""
        read = asyncio.ensure_future(anext(self._messages, None))
        drain = asyncio.ensure_future(self._shop.draining.wait())
        try:
            while True:
                await asyncio.wait(
                    {read, drain}, timeout=self._shop.config.idle_timeout_s, return_when="FIRST_COMPLETED"
                )
                if read.done():
                    return read.result()
                if drain.done():
                    raise later(codes.UNAVAILABLE, "the server is shutting down: send the other pages again", RETRY_S)
                if not self._under_way:
                    limit = self._shop.config.idle_timeout_s
                    raise Rejected(codes.DEADLINE_EXCEEDED, f"nothing came for {limit:g} s: open a new call")
        finally:
            read.cancel()
            drain.cancel()

    def _begin(self, start: pb.SequenceStart) -> None:
        if self._start is not None:
            raise invalid("start", f"`start` came twice; {ORDER}")
        shop = self._shop
        shop.packs.name(start.pack)
        if start.reference_set:
            shop.sets.open(start.reference_set)
        convert.options(start.options)
        convert.check_output(start.output)
        convert.check_priority(start.priority)
        self._start = start

    def _reference(self, image: pb.Image) -> None:
        most, count = self._shop.config.max_inline_references, len(self._references)
        if self._start is None or self._common is not None:
            raise invalid("reference", f"a reference out of place; {ORDER}")
        if self._start.reference_set:
            raise invalid("reference", "a reference, and a reference_set in `start`: give one of both")
        if count == most:
            raise invalid("reference", f"more than {most} references: make a reference set of them")
        size = image.ByteSize()
        self._shop.held.take(size)
        self._reference_bytes += size
        self._references.append(inline_item(image, count, "reference"))

    async def _page(self, page: pb.SequencePage) -> None:
        common = self._ready()
        if not 1 <= len(page.id) <= LONGEST_ID:
            raise invalid("page.id", f"a page id of {len(page.id)} characters, expected 1 to {LONGEST_ID}")
        if page.id in self._under_way:
            raise invalid("page.id", f"page id {page.id!r} is under way already: choose another")
        await self._room.acquire()
        size = page.ByteSize()
        self._under_way[page.id] = under_way = _UnderWay(None, 0)
        try:
            self._shop.held.take(size)
            under_way.size = size
            options = convert.options(page.options) if page.HasField("options") else None
            deadline = _sooner(common.deadline, page)
            job = common.job(page.id, page.image, "page.image", self._outbox.post, options, deadline)
            under_way.ticket = self._shop.submit(job)
        except Exception as error:  # of this page alone; Refused among them
            self._outbox.post(page.id, Failed(error))

    def _ready(self) -> Common:
        """What all pages share, once the first of them is there."""
        if self._common is None:
            if self._start is None:
                raise invalid("page", f"a page before `start`; {ORDER}")
            self._common = self._make_common(self._start)
        return self._common

    def _make_common(self, start: pb.SequenceStart) -> Common:
        if not start.reference_set and not self._references:
            raise invalid(
                "reference", "no references: name a reference_set in `start`, or send pictures before the pages"
            )
        references: Any = Inline(self._references, self._shop.limits)
        if start.reference_set:
            references = self._set(start.reference_set)
        self._references = []
        options: ColorizeOptions = convert.options(start.options)
        client, pack = CALL.get().client, self._shop.packs.name(start.pack)
        return Common(client, pack, references, options, start.output, start.priority, deadline_of(self._context))

    def _set(self, name: str) -> Pool:
        return self._shop.sets.open(name)

    def _cancel(self, id: str) -> None:
        """A page that has ended, or never was, is nothing to complain about: they may have crossed on the way."""
        page = self._under_way.get(id)
        if page is not None and page.ticket is not None:
            self._shop.scheduler.cancel(page.ticket)

    # Out

    async def _tell(self, id: str, event: Told) -> None:
        message = await self._message(id, event)
        if isinstance(event, END):
            page = self._under_way.pop(id)
            self._shop.held.give(page.size)
            self._shop.ended(id, event)
        await self._write(message)
        if isinstance(event, END):
            self._room.release()

    async def _write(self, message: pb.ColorizeSequenceResponse) -> None:
        try:
            async with asyncio.timeout(self._shop.config.idle_timeout_s):  # wait_for of 3.11 may swallow a cancellation
                await self._context.write(message)
        except TimeoutError:
            raise Rejected(codes.DEADLINE_EXCEEDED, "the client reads nothing: read, or close the call") from None
        except grpc.aio.BaseError as error:
            raise Rejected(codes.UNAVAILABLE, f"the call has ended under way: {error}") from error

    async def _message(self, id: str, event: Told) -> pb.ColorizeSequenceResponse:
        match event:
            case Accepted():
                accepted = pb.PageAccepted(position=event.position, estimated_wait_seconds=event.estimated_wait_s)
                return pb.ColorizeSequenceResponse(page_id=id, accepted=accepted)
            case Retrieved():
                retrieval = pb.PageRetrieval(matches=[convert.match(one) for one in event.matches])
                return pb.ColorizeSequenceResponse(page_id=id, retrieval=retrieval)
            case Preview():
                preview = await self._shop.encode(convert.preview, event.step, event.steps, event.image)
                return pb.ColorizeSequenceResponse(page_id=id, preview=preview)
            case Encoded():
                return pb.ColorizeSequenceResponse(page_id=id, result=event.message)
            case Cancelled():
                error = pb.PageError(code=codes.CANCELLED, message=f"cancelled after {event.step} steps")
                return pb.ColorizeSequenceResponse(page_id=id, error=error)
        return pb.ColorizeSequenceResponse(page_id=id, error=error_message(event.error))


def _sooner(deadline: float | None, page: pb.SequencePage) -> float | None:
    """The call's deadline, or the page's own where that comes first."""
    if not page.HasField("timeout"):
        return deadline
    timeout: Duration = page.timeout
    seconds = float(timeout.seconds) + timeout.nanos / 1e9
    if not 0 < seconds < 1e9:
        raise invalid("page.timeout", f"timeout is {seconds:g} s, expected more than 0")
    own: float = time.monotonic() + seconds
    return own if deadline is None else min(own, deadline)
