"""Seconds by stage: `with clock("retrieval"): ...`, then `clock.seconds`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class StageClock:
    """Adds up wall-clock seconds per stage name. Stages may repeat; a stage that raises is counted too.

    Stages are meant to follow one another: a stage opened inside another is counted in both.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    @property
    def total(self) -> float:
        """Sum over all stages, in seconds."""
        return sum(self.seconds.values())
