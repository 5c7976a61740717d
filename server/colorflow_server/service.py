"""The service `colorflow.v1.Colorizer`: each method in a few lines, over what the other modules do."""

import asyncio
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from google.rpc import code_pb2 as codes

from colorflow_rt.pack import Pack
from colorflow_rt.references import AddReport
from colorflow_server import convert
from colorflow_server.calls import CALL
from colorflow_server.events import Cancelled, Encoded, Failed, PageJob, Refused, Told
from colorflow_server.outbox import Outbox
from colorflow_server.pages import Common, Shop, deadline_of, inline
from colorflow_server.pb import colorflow_pb2 as pb
from colorflow_server.pb.colorflow_pb2_grpc import ColorizerServicer
from colorflow_server.sequence import Sequence
from colorflow_server.status import Rejected, invalid

MOST_HITS = 100


class Colorizer(ColorizerServicer):
    """Handlers. What they raise becomes a status in `calls`."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop

    async def Colorize(self, request: pb.ColorizeRequest, context: Any) -> pb.ColorizeResponse:  # noqa: N802
        """One page."""
        shop = self._shop
        with shop.held.hold(request.ByteSize()):
            outbox = Outbox()
            job = self._common(request, context).job("page", request.page, "page", outbox.post_end)
            ended = await self._through(job, outbox)
        if isinstance(ended, Encoded):
            return pb.ColorizeResponse(result=ended.message)
        if isinstance(ended, Failed):
            raise ended.error
        raise Rejected(codes.UNAVAILABLE, "the server stopped before the page was done: send it again")

    async def _through(self, job: PageJob, outbox: Outbox) -> Told:
        """The last event of a page, counted. It is left where the call is."""
        shop = self._shop
        ended: Told = Cancelled(0)
        try:
            ticket = shop.submit(job)
        except Refused as error:
            shop.ended(job.id, Failed(error))
            raise
        try:
            if found := await outbox.next():
                ended = found[1]
            return ended
        finally:
            if isinstance(ended, Cancelled):
                shop.scheduler.cancel(ticket)  # for nobody waits; one that has ended is no matter
            shop.ended(job.id, ended)

    def _common(self, request: pb.ColorizeRequest, context: Any) -> Common:
        shop, references = self._shop, request.WhichOneof("references")
        options = convert.options(request.options)
        if options.preview_every:
            raise invalid("options.preview_every", "a single call sends no previews: use ColorizeSequence, or 0")
        pool = (
            shop.sets.open(request.reference_set)
            if references == "reference_set"
            else inline(request.inline_references.images, shop, "inline_references")
        )
        output, priority = convert.check_output(request.output), convert.check_priority(request.priority)
        pack, client = shop.packs.name(request.pack), CALL.get().client
        return Common(client, pack, pool, options, output, priority, deadline_of(context))

    async def ColorizeSequence(self, messages: Any, context: Any) -> None:  # noqa: N802
        """Pages as they come."""
        await Sequence(self._shop, aiter(messages), context).run()

    # Reference sets

    async def CreateReferenceSet(self, request: pb.CreateReferenceSetRequest, context: Any) -> Any:  # noqa: N802
        """Make a set."""
        await asyncio.to_thread(self._shop.sets.create, request.name)
        return pb.CreateReferenceSetResponse()

    async def AddReferences(self, messages: Any, context: Any) -> pb.AddReferencesResponse:  # noqa: N802
        """Add pictures, each for good before the next is taken."""
        target, count, report = None, 0, AddReport()
        async for message in _unless_idle(messages, self._shop.config.idle_timeout_s):
            kind = message.WhichOneof("message")
            if kind != ("target" if target is None else "image"):
                raise invalid("message", f"got {kind or 'nothing'}, expected `target` once and first, then images")
            if target is None:
                target = message.target
                await asyncio.to_thread(self._target, target)
                continue
            with self._shop.held.hold(message.ByteSize()):
                await self._add(target, message.image, count, report)
            count += 1
        if target is None:
            raise invalid("target", "the call ended before it began, expected `target` once and first, then images")
        return pb.AddReferencesResponse(
            added=[convert.reference(one) for one in report.added],
            duplicates=[convert.reference(one) for _, one in report.duplicates],
            refused=[pb.AddReferencesResponse.Refusal(name=name, reason=reason) for name, reason in report.refused],
        )

    def _target(self, target: pb.AddTarget) -> None:
        try:
            self._shop.sets.open(target.set)
        except Rejected as error:
            if error.status.code != codes.NOT_FOUND or not target.create:
                raise
            self._shop.sets.create(target.set)

    async def _add(self, target: pb.AddTarget, image: pb.Image, count: int, report: AddReport) -> None:
        item = (image.name, convert.source(image, "image"))
        one = await asyncio.to_thread(self._shop.sets.add, target.set, item, target.tag, target.approved)
        report.added += one.added
        report.duplicates += one.duplicates
        report.refused += [(image.name or f"picture {count + 1}", reason) for _, reason in one.refused]

    async def ListReferenceSets(self, request: Any, context: Any) -> pb.ListReferenceSetsResponse:  # noqa: N802
        """All sets."""
        return pb.ListReferenceSetsResponse(names=await asyncio.to_thread(self._shop.sets.names))

    async def ListReferences(self, request: pb.ListReferencesRequest, context: Any) -> Any:  # noqa: N802
        """A set."""
        found = await asyncio.to_thread(self._shop.sets.references, request.set)
        return pb.ListReferencesResponse(references=[convert.reference(one) for one in found])

    async def GetReference(self, request: pb.GetReferenceRequest, context: Any) -> pb.GetReferenceResponse:  # noqa: N802
        """A picture."""
        reference, png = await asyncio.to_thread(self._shop.sets.picture, request.set, request.id)
        image = pb.Image(name=reference.name, encoded=png)
        return pb.GetReferenceResponse(reference=convert.reference(reference), image=image)

    async def RemoveReferences(self, request: pb.RemoveReferencesRequest, context: Any) -> Any:  # noqa: N802
        """Remove pictures."""
        removed = await asyncio.to_thread(self._shop.sets.remove, request.set, list(request.ids))
        return pb.RemoveReferencesResponse(removed=removed)

    async def SearchReferences(self, request: pb.SearchReferencesRequest, context: Any) -> Any:  # noqa: N802
        """What a page would be coloured from."""
        count, colorizer = request.count or 3, self._shop.packs.colorizer(request.pack)
        if count > MOST_HITS:
            raise invalid("count", f"count is {count}, expected 1 to {MOST_HITS}")
        with self._shop.held.hold(request.ByteSize()):
            page = convert.source(request.page, "page")
            found = await self._shop.encode(self._shop.sets.search, request.set, page, colorizer, count)
        hits = [convert.hit(q, rank, hit) for q, row in enumerate(found) for rank, hit in enumerate(row)]
        return pb.SearchReferencesResponse(hits=hits)

    async def DeleteReferenceSet(self, request: pb.DeleteReferenceSetRequest, context: Any) -> Any:  # noqa: N802
        """Delete a set."""
        await asyncio.to_thread(self._shop.sets.delete, request.name)
        return pb.DeleteReferenceSetResponse()

    # The server

    async def ListPacks(self, request: pb.ListPacksRequest, context: Any) -> pb.ListPacksResponse:  # noqa: N802
        """What is served."""
        return pb.ListPacksResponse(packs=self._packs())

    async def GetServerInfo(self, request: Any, context: Any) -> pb.GetServerInfoResponse:  # noqa: N802
        """What the server is."""
        config, state = self._shop.config, self._shop.scheduler.snapshot()
        limits = pb.ServerLimits(
            max_message_bytes=config.max_message_bytes,
            max_pixels=config.max_pixels,
            min_side=self._shop.limits.min_side,
            max_queue=config.max_queue,
            max_pages_in_flight=config.max_pages_in_flight,
            max_inline_references=config.max_inline_references,
        )
        load = pb.ServerLoad(
            waiting=state.waiting, running=state.running, slots=state.slots, slots_used=state.slots_used
        )
        return pb.GetServerInfoResponse(
            version=own_version(),
            backend=_backend(self._shop.packs.colorizer("").pack),
            packs=self._packs(),
            limits=limits,
            load=load,
            uptime_seconds=time.monotonic() - self._shop.started,
            draining=self._shop.draining.is_set(),
        )

    def _packs(self) -> list[pb.Pack]:
        served = self._shop.packs.served
        return [convert.pack(one.colorizer.pack, one.reloads, one.error) for one in served]


def _backend(pack: Pack) -> str:
    """What computes: the module of its engines."""
    return type(pack.engine("denoise_step")).__module__.rpartition(".")[2]


async def _unless_idle(messages: Any, seconds: float) -> Any:
    """The messages. Rejected: the client lets the call lie."""
    stream = aiter(messages)
    while True:
        try:
            async with asyncio.timeout(seconds):  # wait_for of 3.11 may swallow a cancellation
                message = await anext(stream, None)
        except TimeoutError:
            raise Rejected(codes.DEADLINE_EXCEEDED, f"nothing came for {seconds:g} s: open a new call") from None
        if message is None:
            return
        yield message


def own_version() -> str:
    """Of colorflow-rt."""
    try:
        return version("colorflow-rt")
    except PackageNotFoundError:
        return "unknown"
