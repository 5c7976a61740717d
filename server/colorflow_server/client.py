"""Clients of a ColorFlow RT server, sync and asyncio, with the same results and errors as `colorflow_rt.Colorizer`.

    from colorflow_server.client import Client
    with Client("127.0.0.1:50051") as client:
        result = client.colorize("page.png", "references/")

Calls that the server refuses for now (RetryInfo), or that do not reach it, are tried again `retries` times.
"""

import asyncio
import queue
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import grpc

from colorflow_rt.errors import OptionError
from colorflow_rt.options import ColorizeOptions
from colorflow_rt.pixels import Picture, Source, read_picture
from colorflow_rt.references import AddReport, Hit, Reference
from colorflow_rt.result import Result
from colorflow_server import wire
from colorflow_server.connection import Connection, Received, Tries
from colorflow_server.pb import colorflow_pb2 as pb
from colorflow_server.pb.colorflow_pb2_grpc import ColorizerStub
from colorflow_server.run import Outcome, Progress, Run
from colorflow_server.wire import RemoteSet, ServerError

__all__ = ["AsyncClient", "Client", "Connection", "RemoteSet", "ServerError"]

DEFAULT_OPTIONS = ColorizeOptions()
PNG = pb.Output()


def _connection(target: str | Connection, given: dict[str, Any]) -> Connection:
    return replace(target, **given) if isinstance(target, Connection) else Connection(target, **given)


def _page_request(
    page: Source, references: Any, options: ColorizeOptions, pack: str, priority: int, output: pb.Output
) -> pb.ColorizeRequest:
    request = pb.ColorizeRequest(
        pack=pack, page=wire.image(page), options=wire.options(options), output=output, priority=priority
    )
    if isinstance(references, RemoteSet):
        request.reference_set = references.name
    else:
        request.inline_references.images.extend(wire.reference_images(references))
    return request


def _add_requests(name: str, items: Any, tag: str, approved: bool) -> Iterator[pb.AddReferencesRequest]:
    yield pb.AddReferencesRequest(target=pb.AddTarget(set=name, tag=tag, approved=approved, create=True))
    for image in wire.reference_images(items):
        yield pb.AddReferencesRequest(image=image)


def _add_report(found: pb.AddReferencesResponse) -> AddReport:
    return AddReport(
        added=[wire.reference(one) for one in found.added],
        duplicates=[(one.name, wire.reference(one)) for one in found.duplicates],
        refused=[(one.name, one.reason) for one in found.refused],
    )


class Client:
    """A client for threads and scripts; safe to use from several threads. Takes a target and fields of `Connection`.

    Raises what `Colorizer` raises, and ServerError.
    """

    def __init__(self, target: str | Connection, **connection: Any) -> None:
        self.connection = _connection(target, connection)
        self._channel = self.connection.channel(grpc)
        self._stub: Any = ColorizerStub(self._channel)

    def close(self) -> None:
        """Hang up."""
        self._channel.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, method: str, request: Callable[[], Any]) -> Any:
        tries = Tries(self.connection)
        while True:
            try:
                return getattr(self._stub, method)(
                    request(), timeout=tries.timeout, metadata=self.connection.metadata()
                )
            except grpc.RpcError as error:
                time.sleep(tries.wait_after(error))

    def colorize(
        self,
        page: Source,
        references: Any,
        options: ColorizeOptions = DEFAULT_OPTIONS,
        *,
        pack: str = "",
        priority: int = 0,
        output: pb.Output = PNG,
        on_progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Result:
        """Colour one page. references: as `Colorizer` takes them, or a RemoteSet. The other arguments: README."""
        if on_progress is None and cancelled is None and not options.preview_every:
            request = _page_request(page, references, options, pack, priority, output)
            return wire.result(self._call("Colorize", lambda: request).result)
        (outcome,) = self.colorize_sequence(
            [page],
            references,
            options,
            pack=pack,
            priority=priority,
            output=output,
            on_progress=on_progress,
            cancelled=cancelled,
        )
        if isinstance(outcome, Result):
            return outcome
        raise outcome.error

    def colorize_sequence(
        self,
        pages: Iterable[Source],
        references: Any,
        options: ColorizeOptions = DEFAULT_OPTIONS,
        *,
        pack: str = "",
        priority: int = 0,
        output: pb.Output = PNG,
        ahead: int = 4,
        on_progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Iterator[Outcome]:
        """Colour pages, `ahead` of them at a time; results come in the order of the pages.

        A page that fails comes as a PageError and the others go on; a call that breaks is taken up again with the
        pages that were under way. cancelled: asked a few times a second; if true, Cancelled is raised.
        """
        run = _run(self.connection, pages, references, options, pack, priority, output, ahead, on_progress)
        while not run.finished:
            try:
                yield from self._sequence(run, cancelled or _never)
            except grpc.RpcError as error:
                time.sleep(run.broke(wire.error_of_call(error)))

    def _sequence(self, run: Run, cancelled: Callable[[], bool]) -> Iterator[Outcome]:
        """One call, until the run is finished or the call breaks."""
        sending: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for message in run.opening():
            sending.put(message)
        call = self._stub.ColorizeSequence(iter(sending.get, None), metadata=self.connection.metadata())
        received = Received(call)
        try:
            while not run.finished:
                for message in run.to_send():
                    sending.put(message)
                yield from run.ready()
                if run.under_way:
                    run.take(received.get(cancelled))
                    yield from run.ready()
                else:
                    time.sleep(run.pause_s())
        finally:
            sending.put(None)
            call.cancel()

    # Reference sets

    def create_set(self, name: str) -> RemoteSet:
        """Make an empty set."""
        self._call("CreateReferenceSet", lambda: pb.CreateReferenceSetRequest(name=name))
        return RemoteSet(name)

    def add_references(self, name: str, items: Any, *, tag: str = "", approved: bool = False) -> AddReport:
        """Add pictures, as `Colorizer` takes them, to a set, which is made if it is not there."""
        return _add_report(self._call("AddReferences", lambda: _add_requests(name, items, tag, approved)))

    def sets(self) -> list[str]:
        """The names of all sets."""
        return list(self._call("ListReferenceSets", pb.ListReferenceSetsRequest).names)

    def references(self, name: str) -> list[Reference]:
        """The pictures of a set."""
        found = self._call("ListReferences", lambda: pb.ListReferencesRequest(set=name))
        return [wire.reference(one) for one in found.references]

    def picture(self, name: str, id: int) -> Picture:
        """The pixels of a picture of a set."""
        found = self._call("GetReference", lambda: pb.GetReferenceRequest(set=name, id=id))
        return read_picture(found.image.encoded)

    def remove_references(self, name: str, ids: Iterable[int]) -> int:
        """Remove pictures; how many."""
        request = pb.RemoveReferencesRequest(set=name, ids=ids)
        return int(self._call("RemoveReferences", lambda: request).removed)

    def search(self, name: str, page: Source, *, pack: str = "", count: int = 3) -> list[list[Hit]]:
        """The nearest patches of a set for each quadrant of a page."""
        request = pb.SearchReferencesRequest(set=name, page=wire.image(page), pack=pack, count=count)
        return wire.hits(self._call("SearchReferences", lambda: request))

    def delete_set(self, name: str) -> None:
        """Delete a set."""
        self._call("DeleteReferenceSet", lambda: pb.DeleteReferenceSetRequest(name=name))

    # The server

    def info(self) -> pb.GetServerInfoResponse:
        """What the server is."""
        found: pb.GetServerInfoResponse = self._call("GetServerInfo", pb.GetServerInfoRequest)
        return found

    def packs(self) -> list[pb.Pack]:
        """The packs that it serves, the default first."""
        return list(self._call("ListPacks", pb.ListPacksRequest).packs)


class AsyncClient:
    """The same for asyncio, for pages; everything else is rarely called: `stub` has all methods of the protocol."""

    def __init__(self, target: str | Connection, **connection: Any) -> None:
        self.connection = _connection(target, connection)
        self._channel = self.connection.channel(grpc.aio)
        self.stub: Any = ColorizerStub(self._channel)

    async def close(self) -> None:
        """Hang up."""
        await self._channel.close()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def colorize(
        self,
        page: Source,
        references: Any,
        options: ColorizeOptions = DEFAULT_OPTIONS,
        *,
        pack: str = "",
        priority: int = 0,
        output: pb.Output = PNG,
    ) -> Result:
        """As `Client.colorize`; a task that is cancelled cancels the page."""
        request = _page_request(page, references, options, pack, priority, output)
        tries = Tries(self.connection)
        while True:
            try:
                found = await self.stub.Colorize(request, timeout=tries.timeout, metadata=self.connection.metadata())
                return wire.result(found.result)
            except grpc.RpcError as error:
                await asyncio.sleep(tries.wait_after(error))

    async def colorize_sequence(
        self,
        pages: Iterable[Source],
        references: Any,
        options: ColorizeOptions = DEFAULT_OPTIONS,
        *,
        pack: str = "",
        priority: int = 0,
        output: pb.Output = PNG,
        ahead: int = 4,
        on_progress: Progress | None = None,
    ) -> AsyncIterator[Outcome]:
        """As `Client.colorize_sequence`."""
        run = _run(self.connection, pages, references, options, pack, priority, output, ahead, on_progress)
        while not run.finished:
            try:
                async for outcome in self._sequence(run):
                    yield outcome
            except grpc.RpcError as error:
                await asyncio.sleep(run.broke(wire.error_of_call(error)))

    async def _sequence(self, run: Run) -> AsyncIterator[Outcome]:
        call = self.stub.ColorizeSequence(metadata=self.connection.metadata())
        try:
            for message in run.opening():
                await call.write(message)
            while not run.finished:
                for message in run.to_send():
                    await call.write(message)
                for outcome in run.ready():
                    yield outcome
                if run.under_way:
                    run.take(await _read(call))
                    for outcome in run.ready():
                        yield outcome
                else:
                    await asyncio.sleep(run.pause_s())
        finally:
            call.cancel()

    async def info(self) -> pb.GetServerInfoResponse:
        """What the server is."""
        request, metadata = pb.GetServerInfoRequest(), self.connection.metadata()
        found: pb.GetServerInfoResponse = await self.stub.GetServerInfo(request, metadata=metadata)
        return found


def _run(
    connection: Connection,
    pages: Iterable[Source],
    references: Any,
    options: ColorizeOptions,
    pack: str,
    priority: int,
    output: pb.Output,
    ahead: int,
    on_progress: Progress | None,
) -> Run:
    if ahead < 1:
        raise OptionError(f"ahead is {ahead}, expected 1 or more")
    limit = connection.timeout_s
    return Run.of(
        pages,
        references,
        options=options,
        pack=pack,
        priority=priority,
        output=output,
        ahead=ahead,
        retries=connection.retries,
        on_progress=on_progress,
        deadline=None if limit is None else time.monotonic() + limit,
    )


async def _read(call: Any) -> Any:
    message = await call.read()
    if message is grpc.aio.EOF:
        await call.code()
        raise ServerError("the server ended the call before all pages were through", "UNAVAILABLE")
    return message


def _never() -> bool:
    return False
