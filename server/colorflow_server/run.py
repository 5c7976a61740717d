"""A sequence as a client sees it: what to send next, what came back, what to send again. It does no I/O itself."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.duration_pb2 import Duration

from colorflow_rt.errors import Cancelled, ColorflowError, EngineError, ImageError
from colorflow_rt.options import ColorizeOptions
from colorflow_rt.result import PageError, Result
from colorflow_server import wire
from colorflow_server.events import Accepted, Preview, Retrieved
from colorflow_server.pb import colorflow_pb2 as pb

Progress = Callable[[int, Accepted | Retrieved | Preview], None]
"""on_progress(page index, event), as the events of a page come"""
Outcome = Result | PageError


@dataclass
class _Page:
    index: int
    name: str
    image: pb.Image
    tries: int = 0
    not_before: float = 0.0  # time.monotonic()


@dataclass
class Run:
    """The pages of one `colorize_sequence`. `retries`: how often a page, or the whole call, is tried again."""

    pages: Iterator[tuple[int, Any]]
    references: Any
    options: ColorizeOptions
    pack: str
    priority: int
    output: pb.Output
    ahead: int
    retries: int
    on_progress: Progress | None = None
    deadline: float | None = None
    _waiting: list[_Page] = field(default_factory=list)
    _sent: dict[str, _Page] = field(default_factory=dict)
    _done: dict[int, Outcome] = field(default_factory=dict)
    _next: int = 0
    _ended: bool = False
    _broken: int = 0
    _images: list[pb.Image] | None = None

    @classmethod
    def of(cls, pages: Iterable[Any], references: Any, **others: Any) -> "Run":
        """Of pages as they are given."""
        return cls(iter(enumerate(pages)), references, **others)

    @property
    def finished(self) -> bool:
        """Every page is through, and every outcome taken."""
        return self._ended and not (self._waiting or self._sent or self._done)

    def opening(self) -> Iterator[pb.ColorizeSequenceRequest]:
        """The first messages of a call; pages that were under way in one that broke are sent again."""
        self._waiting = sorted([*self._sent.values(), *self._waiting], key=lambda page: page.index)
        self._sent = {}
        name = self.references.name if isinstance(self.references, wire.RemoteSet) else ""
        yield pb.ColorizeSequenceRequest(
            start=pb.SequenceStart(
                pack=self.pack,
                reference_set=name,
                options=wire.options(self.options),
                output=self.output,
                priority=self.priority,
            )
        )
        if not name:
            if self._images is None:
                self._images = list(wire.reference_images(self.references))
            for image in self._images:
                yield pb.ColorizeSequenceRequest(reference=image)

    def to_send(self) -> Iterator[pb.ColorizeSequenceRequest]:
        """Pages whose turn it is: never more than `ahead` are under way."""
        while len(self._sent) + len(self._done) < self.ahead and (page := self._take()):
            self._sent[str(page.index)] = page
            message = pb.SequencePage(id=str(page.index), image=page.image)
            if self.deadline is not None:
                timeout = Duration()
                timeout.FromMilliseconds(max(1, int(1000 * (self.deadline - time.monotonic()))))
                message.timeout.CopyFrom(timeout)
            yield pb.ColorizeSequenceRequest(page=message)

    def _take(self) -> _Page | None:
        now = time.monotonic()
        for page in self._waiting:
            if page.not_before <= now:
                self._waiting.remove(page)
                return page
        if self._waiting or self._ended:
            return None
        return self._read()

    def _read(self) -> _Page | None:
        """The next page; one that cannot be read has its outcome at once."""
        for index, source in self.pages:
            name = str(source) if isinstance(source, str | Path) else f"page {index + 1}"
            try:
                return _Page(index, name, wire.image(source, name[-200:]))
            except ImageError as error:
                self._done[index] = PageError(index, name, error)
                return None
        self._ended = True
        return None

    @property
    def under_way(self) -> bool:
        """Something will come from the server."""
        return bool(self._sent)

    def pause_s(self) -> float:
        """Seconds until a page may be sent again, where nothing is under way."""
        if not self._waiting:
            return 0.0
        return max(0.0, min(page.not_before for page in self._waiting) - time.monotonic())

    def take(self, message: pb.ColorizeSequenceResponse) -> None:
        """What came from the server. ColorflowError: it concerns all pages."""
        page = self._sent.get(message.page_id)
        if page is None:
            return
        match message.WhichOneof("event"):
            case "result":
                self._end(message.page_id, wire.result(message.result))
            case "error":
                self._failed(message.page_id, page, wire.error_of(message.error))
            case "accepted":
                accepted = message.accepted
                self._progress(page.index, Accepted(accepted.position, accepted.estimated_wait_seconds))
            case "retrieval":
                self._progress(page.index, Retrieved(tuple(wire.match(one) for one in message.retrieval.matches)))
            case "preview" if self.on_progress:
                preview = message.preview
                self._progress(page.index, Preview(preview.step, preview.steps, wire.pixels(preview.image)))

    def _progress(self, index: int, event: Accepted | Retrieved | Preview) -> None:
        if self.on_progress:
            self.on_progress(index, event)

    def _end(self, id: str, outcome: Outcome) -> None:
        page = self._sent.pop(id)
        self._done[page.index] = outcome
        self._broken = 0

    def _failed(self, id: str, page: _Page, error: ColorflowError) -> None:
        if isinstance(error, ImageError) and str(error).startswith("picture: "):
            error = ImageError(f"{page.name}: {str(error).removeprefix('picture: ')}")  # the server knows no paths
        wait = wire.wait_before(error, page.tries)
        if wait is not None and page.tries < self.retries and self._in_time(wait):
            page.tries += 1
            page.not_before = time.monotonic() + wait
            self._waiting.append(self._sent.pop(id))
        elif isinstance(error, ImageError | EngineError | wire.ServerError) and not isinstance(error, Cancelled):
            self._end(id, PageError(page.index, page.name, error))
        else:
            raise error

    def _in_time(self, wait: float) -> bool:
        return self.deadline is None or time.monotonic() + wait < self.deadline

    def broke(self, error: ColorflowError) -> float:
        """The call broke: seconds until the next. The error itself where another would not help."""
        wait = wire.wait_before(error, self._broken)
        if wait is None or self._broken >= self.retries or not self._in_time(wait):
            raise error
        self._broken += 1
        return wait

    def ready(self) -> Iterator[Outcome]:
        """Outcomes in the order of the pages, as far as they have come."""
        while self._next in self._done:
            self._next += 1
            yield self._done.pop(self._next - 1)
