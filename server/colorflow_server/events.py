"""What server and scheduler say to each other: jobs in, events out, and refusals. Records only, no behaviour."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from colorflow_rt.options import ColorizeOptions
from colorflow_rt.pixels import Picture, Source
from colorflow_rt.pool import Pool
from colorflow_rt.result import Match, Result
from colorflow_server.pb import colorflow_pb2 as pb

Reason = Literal["queue_full", "deadline", "draining", "unknown_pack"]


class Refused(Exception):
    """A page is not admitted, said at once. reason: why; retry_after_s: when it may be worth trying again."""

    def __init__(self, reason: Reason, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.reason, self.retry_after_s = reason, retry_after_s


class DeadlineExceeded(Exception):
    """A page was not done by its deadline."""


@dataclass(frozen=True)
class Accepted:
    """Admitted, with `position` pages before it."""

    position: int
    estimated_wait_s: float


@dataclass(frozen=True)
class Retrieved:
    """The reference patches of the page's windows so far."""

    matches: tuple[Match, ...]


@dataclass(frozen=True, eq=False)
class Preview:
    """image: u8[h,w,3], the page as the model sees it after `step` of `steps` steps."""

    step: int
    steps: int
    image: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Finished:
    """The page is done; queue_s: seconds between admission and its first stage."""

    result: Result
    queue_s: float


@dataclass(frozen=True, eq=False)
class Encoded:
    """Finished, as its client gets it: made in the thread that finished the page, and smaller than the pixels."""

    message: pb.PageResult


@dataclass(frozen=True, eq=False)
class Failed:
    """The page ended with an error: ColorflowError, DeadlineExceeded, or one that nobody meant."""

    error: Exception


@dataclass(frozen=True)
class Cancelled:
    """The page was left after `step` steps, by `Scheduler.cancel` or `close`."""

    step: int


Event = Accepted | Retrieved | Preview | Finished | Failed | Cancelled
Told = Accepted | Retrieved | Preview | Encoded | Failed | Cancelled  # to a client
END = Finished | Encoded | Failed | Cancelled


@dataclass(frozen=True, eq=False)
class PageJob:
    """A page to colour.

    id: for messages. client: whose turn it uses. page: decoded when its turn comes, as `references` is made where it
    is a function. priority: -100 to 100, higher goes first. deadline: of time.monotonic(). preview_every: 0 for none.
    on_event: called from threads of the scheduler and from `submit`; it must not block. Exactly one of END comes, last.
    """

    id: str
    client: str
    pack: str
    page: Source | Picture
    references: Pool | Callable[[], Pool]
    options: ColorizeOptions
    priority: int
    deadline: float | None
    preview_every: int
    on_event: Callable[[Event], None]
