"""A page from its message to the scheduler, and its events back to messages: what unary calls and sequences share."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.rpc import code_pb2 as codes

from colorflow_rt.options import ColorizeOptions
from colorflow_rt.pixels import Limits
from colorflow_rt.pool import Pool, References
from colorflow_server import convert
from colorflow_server.calls import CALL
from colorflow_server.config import MIB, ServerConfig
from colorflow_server.events import Encoded, Failed, Finished, PageJob, Told
from colorflow_server.log import event as log_event
from colorflow_server.metrics import Metrics
from colorflow_server.packs import Packs
from colorflow_server.pb import colorflow_pb2 as pb
from colorflow_server.sets import Sets
from colorflow_server.status import invalid, later, status_of
from colorflow_server.tracing import Tracer

if TYPE_CHECKING:
    from colorflow_server.scheduler import Scheduler, Ticket

LOG = logging.getLogger("colorflow.pages")
RETRY_S = 1.0


class Held:
    """Bytes of requests in memory, of all calls together, under a limit."""

    def __init__(self, limit: int) -> None:
        self.bytes, self._limit = 0, limit

    def take(self, size: int) -> None:
        """Count bytes in. Rejected: the limit is reached."""
        if self.bytes + size > self._limit:
            message = f"the server holds {self.bytes / MIB:.0f} MiB of requests, the limit: try again in a moment"
            raise later(codes.RESOURCE_EXHAUSTED, message, RETRY_S)
        self.bytes += size

    def give(self, size: int) -> None:
        """Count bytes out."""
        self.bytes -= size

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Both."""
        self.take(size)
        try:
            yield
        finally:
            self.give(size)


@dataclass
class Shop:
    """What handlers need; one for a server. `draining` is set when nothing new is taken."""

    config: ServerConfig
    packs: Packs
    sets: Sets
    scheduler: "Scheduler"
    metrics: Metrics
    tracer: Tracer
    encoders: Executor
    draining: asyncio.Event
    held: Held = field(init=False)
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.held = Held(self.config.max_held_mib * MIB)

    @property
    def limits(self) -> Limits:
        """Of pictures."""
        return Limits(max_pixels=self.config.max_pixels)

    async def encode(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run what takes time, beside the loop."""
        return await asyncio.get_running_loop().run_in_executor(self.encoders, function, *arguments)

    def submit(self, job: PageJob) -> "Ticket":
        """To the scheduler. Refused, said and counted at once."""
        return self.scheduler.submit(job)

    def ended(self, page: str, event: Told) -> None:
        """Count and log the last event of a page, before its client can see it."""
        call, fields = CALL.get(), dict[str, Any]()
        if isinstance(event, Encoded):
            self.metrics.finished(event.message)
            self.tracer.page(page, event.message.queue_seconds, event.message.seconds)
            outcome, fields = "finished", {"queue_s": round(event.message.queue_seconds, 4)}
        else:
            outcome = _outcome(event)
            self.metrics.pages.labels(outcome).inc()
        if isinstance(event, Failed):
            fields = {"error": str(event.error)}
        about = {"request_id": call.id, "page": page, "client": call.client, "outcome": outcome}
        log_event(LOG, logging.INFO, "page", **about, **fields)


def _outcome(event: Told) -> str:
    """cancelled, refused (come again) or failed."""
    if not isinstance(event, Failed):
        return "cancelled"
    status = status_of(event.error)
    return "refused" if status and status.code in (codes.RESOURCE_EXHAUSTED, codes.UNAVAILABLE) else "failed"


@dataclass(frozen=True)
class Common:
    """What is the same for the pages of a call."""

    client: str
    pack: str
    references: Pool | Callable[[], Pool]
    options: ColorizeOptions
    output: pb.Output
    priority: int
    deadline: float | None

    def job(
        self,
        id: str,
        image: pb.Image,
        field: str,
        post: Callable[[str, Told], None],
        options: ColorizeOptions | None = None,
        deadline: float | None = None,
    ) -> PageJob:
        """A page's job, whose events are posted under `id`."""
        options = options or self.options
        return PageJob(
            id=image.name or id,
            client=self.client,
            pack=self.pack,
            page=convert.source(image, field),
            references=self.references,
            options=options,
            priority=self.priority,
            deadline=deadline if deadline is not None else self.deadline,
            preview_every=options.preview_every,
            on_event=lambda event: post(id, self._encoded(event) if isinstance(event, Finished) else event),
        )

    def _encoded(self, event: Finished) -> Encoded | Failed:
        try:
            return Encoded(convert.result(event.result, self.output, event.queue_s))
        except Exception as error:
            return Failed(error)


class Inline:
    """References that came with a call: decoded when the first of its pages needs them, once."""

    def __init__(self, items: list[tuple[str, convert.Source]], limits: Limits) -> None:
        self._items, self._limits = items, limits
        self._lock = threading.Lock()
        self._pool: Pool | None = None
        self._error: Exception | None = None

    def __call__(self) -> Pool:
        """The pool, for threads of the scheduler. ImageError where one cannot be read; always the same one."""
        with self._lock:
            if self._error is not None:
                raise self._error
            if self._pool is None:
                try:
                    self._pool = References(self._items, self._limits)
                except Exception as error:
                    self._error = error
                    raise
                finally:
                    self._items = []
            return self._pool


def inline_item(image: pb.Image, number: int, field: str) -> tuple[str, convert.Source]:
    """A reference that came with a call; its name is needed in messages and results."""
    return image.name or f"reference {number + 1}", convert.source(image, field)


def inline(images: Any, shop: Shop, field: str) -> Inline:
    """References of a unary call. Rejected: none, or too many."""
    most = shop.config.max_inline_references
    if not images:
        raise invalid(field, "no references: name a reference_set, or send pictures in colour as inline_references")
    if len(images) > most:
        raise invalid(field, f"{len(images)} inline references, expected at most {most}: make a reference set of them")
    items = [inline_item(image, number, f"{field}.images[{number}]") for number, image in enumerate(images)]
    return Inline(items, shop.limits)


def deadline_of(context: Any) -> float | None:
    """The call's deadline by time.monotonic()."""
    left = context.time_remaining()
    return None if left is None else time.monotonic() + float(left)


def error_message(error: Exception) -> pb.PageError:
    """The status of a page that failed in a sequence."""
    status = status_of(error)
    if status is None:
        LOG.error("unexpected error of a page", exc_info=error, extra={"fields": {"request_id": CALL.get().id}})
        return pb.PageError(
            code=codes.INTERNAL, message=f"unexpected {type(error).__name__}: the server's log says more"
        )
    return pb.PageError(code=status.code, message=status.message, details=status.details)
