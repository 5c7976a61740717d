"""Clients of a server, good ones and bad ones, each a call of its own with a page in it."""

import asyncio
import random
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import grpc
from campaign import color_picture, gray_page
from colorflow_server.pb import colorflow_pb2 as pb
from colorflow_server.pb.colorflow_pb2_grpc import ColorizerStub
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from colorflow_rt.pixels import encode_png

KINDS = ("good", "cancel", "stall", "vanish", "garbage")
CHANNEL = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
STALL_S = 3.0


@dataclass(frozen=True)
class Plan:
    """What pages are like. steps: drawn evenly; kinds: the share of each bad kind; timeout: of a call, 0: none.

    tokens: clients by their token; none: all are one client.
    """

    steps: tuple[int, ...] = (4,)
    preview_every: int = 2
    kinds: dict[str, float] = field(default_factory=dict)
    timeout_s: float = 0.0
    tokens: tuple[str, ...] = ()
    size: tuple[int, int] = (64, 96)


@dataclass
class Call:
    """What a client saw: seconds since it began, and the status. "LOST": it went away before there was one."""

    id: str
    kind: str
    steps: int
    began: float
    code: str = "LOST"
    page_code: str = ""
    retry_info: bool = False
    accepted_s: float | None = None
    preview_s: float | None = None
    queue_s: float | None = None
    seconds: float = 0.0
    message: str = ""

    @property
    def refused(self) -> bool:
        """The page was not admitted."""
        return "RESOURCE_EXHAUSTED" in (self.code, self.page_code)

    @property
    def finished(self) -> bool:
        """The page came back."""
        return self.page_code == "OK"


class Clients:
    """Sends pages to one server over a few connections, as an asyncio program."""

    def __init__(self, address: str, plan: Plan, seed: int = 0, connections: int = 8) -> None:
        self.address, self.plan, self.chance = address, plan, random.Random(seed)
        self._channels = [grpc.aio.insecure_channel(address, CHANNEL) for _ in range(connections)]
        self._page = encode_png(gray_page(seed, plan.size)[..., None].repeat(3, axis=2))
        self._reference = encode_png(color_picture(seed, plan.size))
        self.calls: list[Call] = []

    async def close(self) -> None:
        """Hang up."""
        for channel in self._channels:
            await channel.close()

    async def one(self) -> Call:
        """A page of a kind and length by chance."""
        chance, shares = self.chance, self.plan.kinds
        bad = [shares.get(kind, 0.0) for kind in KINDS[1:]]
        kind = chance.choices(KINDS, [max(0.0, 1 - sum(bad)), *bad])[0]
        call = Call(uuid.uuid4().hex, kind, chance.choice(self.plan.steps), time.monotonic())
        self.calls.append(call)
        try:
            await getattr(self, f"_{kind}")(call)
        except grpc.aio.AioRpcError as error:
            call.code, call.message = error.code().name, error.details() or ""
            call.retry_info = _has_retry_info(error)
        finally:
            call.seconds = time.monotonic() - call.began
        return call

    def _open(self, call: Call, channel: Any = None) -> Any:
        metadata = [("x-request-id", call.id)]
        if self.plan.tokens:
            metadata.append(("authorization", f"Bearer {self.chance.choice(self.plan.tokens)}"))
        stub: Any = ColorizerStub(channel or self.chance.choice(self._channels))
        return stub.ColorizeSequence(timeout=self.plan.timeout_s or None, metadata=metadata)

    async def _send(self, call: Call, stream: Any) -> None:
        options = pb.ColorizeOptions(steps=call.steps, preview_every=self.plan.preview_every, style=pb.STYLE_GRAY)
        await stream.write(pb.ColorizeSequenceRequest(start=pb.SequenceStart(options=options)))
        await stream.write(pb.ColorizeSequenceRequest(reference=pb.Image(name="ref", encoded=self._reference)))
        page = pb.SequencePage(id="page", image=pb.Image(encoded=self._page))
        await stream.write(pb.ColorizeSequenceRequest(page=page))
        await stream.done_writing()

    async def _read(self, call: Call, stream: Any, leave: Callable[[Any], bool] = lambda message: False) -> bool:
        """Take messages to the end; True if `leave` said at one of them that it is enough."""
        async for message in stream:
            _note(call, message)
            if leave(message):
                return True
        code = await stream.code()
        call.code = code.name
        return False

    async def _good(self, call: Call) -> None:
        stream = self._open(call)
        await self._send(call, stream)
        await self._read(call, stream)

    async def _cancel(self, call: Call) -> None:
        """Leave at a step by chance, or before the first."""
        at, stream = self.chance.randint(0, call.steps), self._open(call)
        await self._send(call, stream)

        def enough(message: Any) -> bool:
            kind = message.WhichOneof("event")
            return (kind == "preview" and message.preview.step >= at) or (kind == "accepted" and at == 0)

        if await self._read(call, stream, enough):
            stream.cancel()

    async def _stall(self, call: Call) -> None:
        """Read nothing for a while."""
        stream = self._open(call)
        await self._send(call, stream)
        await asyncio.sleep(STALL_S)
        await self._read(call, stream)

    async def _vanish(self, call: Call) -> None:
        """The connection breaks without a word: a relay in between drops it."""
        relay = await Relay.start(self.address)
        channel = grpc.aio.insecure_channel(relay.address, [*CHANNEL, ("grpc.enable_retries", 0)])
        try:
            stream = self._open(call, channel)
            await self._send(call, stream)
            await stream.read()
            await asyncio.sleep(self.chance.uniform(0, 0.3))
            relay.drop()
        finally:
            relay.drop()
            await channel.close()

    async def _garbage(self, call: Call) -> None:
        """Bytes that are no message, or a page that is no picture."""
        metadata = (("x-request-id", call.id),)
        channel, data = self.chance.choice(self._channels), self.chance.randbytes(self.chance.randint(1, 2000))
        if self.chance.random() < 0.5:
            raw = channel.unary_unary("/colorflow.v1.Colorizer/Colorize")
            await raw(data, metadata=metadata)
            return
        image = pb.Image(encoded=self._page[: self.chance.randint(0, 200)] + data)
        references = pb.InlineReferences(images=[pb.Image(encoded=self._reference)])
        request = pb.ColorizeRequest(page=image, inline_references=references)
        stub: Any = ColorizerStub(channel)
        await stub.Colorize(request, metadata=metadata)


class Relay:
    """A TCP port that passes everything on to a server until it is dropped, with a reset to both sides."""

    def __init__(self) -> None:
        self.address = ""
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    @classmethod
    async def start(cls, target: str) -> "Relay":
        """Listen on a free port."""
        relay = cls()
        host, _, port = target.rpartition(":")

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection(host, int(port))
            relay._writers += [writer, back]
            await asyncio.gather(_pass_on(reader, back), _pass_on(there, writer))

        relay._server = await asyncio.start_server(accept, "127.0.0.1", 0)
        relay.address = f"127.0.0.1:{relay._server.sockets[0].getsockname()[1]}"
        return relay

    def drop(self) -> None:
        """Break every connection."""
        for writer in self._writers:
            writer.transport.abort()
        if self._server is not None:
            self._server.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass


def _note(call: Call, message: Any) -> None:
    now, kind = time.monotonic() - call.began, message.WhichOneof("event")
    if kind == "accepted":
        call.accepted_s = now
    elif kind == "preview" and call.preview_s is None:
        call.preview_s = now
    elif kind == "result":
        call.page_code, call.queue_s = "OK", message.result.queue_seconds
        call.preview_s = now if call.preview_s is None else call.preview_s
    elif kind == "error":
        call.page_code, call.message = _NAMES[message.error.code], message.error.message
        call.retry_info = any(detail.Is(RetryInfo.DESCRIPTOR) for detail in message.error.details)


_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


def _has_retry_info(error: Any) -> bool:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            return any(detail.Is(RetryInfo.DESCRIPTOR) for detail in Status.FromString(value).details)
    return False


async def open_loop(clients: Clients, rate: float, seconds: float) -> list[Call]:
    """Pages come by chance (Poisson), `rate` a second, whatever the server does; waits for all of them."""
    end, due, sent = time.monotonic() + seconds, time.monotonic(), list[asyncio.Task[Call]]()
    while due < end:
        due += clients.chance.expovariate(rate)
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        sent.append(asyncio.create_task(clients.one()))
    return list(await asyncio.gather(*sent))


async def closed_loop(clients: Clients, together: int, seconds: float) -> list[Call]:
    """So many clients, each of which sends its next page when the last is through."""
    end, found = time.monotonic() + seconds, list[Call]()

    async def client() -> None:
        while time.monotonic() < end:
            found.append(await clients.one())

    await asyncio.gather(*(client() for _ in range(together)))
    return found


def record(call: Call) -> dict[str, Any]:
    """For JSON."""
    return asdict(call)
