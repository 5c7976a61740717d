"""Threads for what is not the loop: reading, retrieval, VAE, super-resolution, previews."""

import itertools
import logging
import queue
import threading
from collections.abc import Callable
from enum import IntEnum

log = logging.getLogger(__name__)


class Stage(IntEnum):
    """What goes first when threads are short: pages that can leave, then what keeps the engine busy, then pictures."""

    CLOSE = 0
    OPEN = 1
    PREVIEW = 2
    STOP = 3


class Workers:
    """A few threads that run calls by stage, then by the order they came. A call must not raise."""

    def __init__(self, count: int) -> None:
        self._calls: queue.PriorityQueue[tuple[Stage, int, Callable[[], None] | None]] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._threads = [threading.Thread(target=self._work, name=f"page-{i}", daemon=True) for i in range(count)]
        for thread in self._threads:
            thread.start()

    def do(self, stage: Stage, call: Callable[[], None]) -> None:
        """Run `call` in one of the threads."""
        self._calls.put((stage, next(self._numbers), call))

    def stop(self) -> None:
        """Finish what was asked for, then end the threads."""
        for _ in self._threads:
            self._calls.put((Stage.STOP, next(self._numbers), None))
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (call := self._calls.get()[2]) is not None:
            try:
                call()
            except Exception:  # a defect of ours: the thread must live on for the other pages
                log.exception("a stage of a page failed in a way that nobody meant")
            del call  # a page's pictures, until the next call comes
