"""A page in the scheduler: where it stands, and the way of its events to the one who sent it."""

import logging
import threading
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colorflow_rt.page import PageRun, Window, guider_steps
from colorflow_rt.pipeline import Colorizer
from colorflow_server.costs import CostModel
from colorflow_server.events import END, Event, PageJob
from colorflow_server.turns import Entry

log = logging.getLogger(__name__)


class State(Enum):
    """Of a page, in the order it goes through them; a strip goes from PAINTING back to OPENING for each window."""

    WAITING = "waiting"  # admitted
    OPENING = "opening"  # in a worker: read, retrieval, canvas, VAE
    READY = "ready"  # may take a slot at the next step boundary
    STEPPING = "stepping"  # in the call of the engine that runs now
    PAINTING = "painting"  # in a worker: decoded, super-resolved, merged
    ENDED = "ended"


@dataclass(eq=False)
class Model:
    """A pack in service: pages keep the one that they were admitted to, also when another takes its name.

    open_s, close_s: seconds of the stages before and after the loop, of late.
    """

    colorizer: Colorizer
    cost: CostModel
    open_s: float = 0.0
    close_s: float = 0.0


@dataclass(eq=False)
class Ticket:
    """A page that was admitted. `Scheduler.submit` makes it; callers hand it to `cancel` and read nothing else.

    Fields belong to the scheduler's lock, but `run` and `window` to the thread that works on the page.
    """

    job: PageJob
    model: Model
    entry: Entry
    admitted: float
    state: State = State.WAITING
    abandoned: bool = False  # cancelled while a thread works on it: that thread ends it
    started: float | None = None
    run: PageRun | None = None
    window: Window | None = None
    preview: tuple[int, Window, NDArray[np.float32]] | None = None  # the latest that no worker has taken up
    preview_asked: bool = False
    loop_s: float = 0.0
    opened: list[Window] = field(default_factory=list)
    events: "Outbox" = field(init=False)

    def __post_init__(self) -> None:
        self.events = Outbox(self.job)

    @property
    def area(self) -> int:
        """Of its latents, in pixels; that of the pack's first size until it is open."""
        if self.window is not None:
            height, width = self.window.slot.sample.shape[-2:]
            return int(height * width)
        pack = self.model.colorizer.pack
        width, height = (2 * side // pack.config.model.vae_factor for side in pack.config.pages.sizes[0])
        return width * height

    @property
    def step_s(self) -> float:
        """Device seconds of one of its steps in a full batch, in the mean."""
        pack, options = self.model.colorizer.pack, self.job.options
        steps, due = options.steps or pack.config.defaults.steps, guider_steps(pack, options)
        return self.model.cost.page_step(self.area) * (self.model.cost.work(due, steps) if due < steps else 1.0)


class Outbox:
    """Events of one page, one at a time and in order, from whatever thread; nothing after an END.

    No lock is held while `on_event` runs. One that raises loses its event, and the log says so.
    """

    def __init__(self, job: PageJob) -> None:
        self._job, self._lock = job, threading.Lock()
        self._events: deque[Event] = deque()
        self._sending = self._ended = False

    def send(self, event: Event) -> None:
        """Queue an event, and call `on_event` unless another thread is doing so."""
        with self._lock:
            if self._ended:
                return
            self._ended = isinstance(event, END)
            self._events.append(event)
            if self._sending:
                return
            self._sending = True
        while (event_ := self._next()) is not None:
            self._call(event_)

    def _next(self) -> Event | None:
        with self._lock:
            if not self._events:
                self._sending = False
                return None
            return self._events.popleft()

    def _call(self, event: Any) -> None:
        try:
            self._job.on_event(event)
        except Exception:
            log.exception("on_event of page %s failed on %s", self._job.id, type(event).__name__)
