"""What a step costs: measured when a pack is taken up, corrected while it serves."""

import time
from collections.abc import Callable

import numpy as np

from colorflow_rt.denoise import Slot, advance
from colorflow_rt.errors import EngineError
from colorflow_rt.pack import Pack
from colorflow_rt.schedule import Schedule

SAVING = 0.1  # of a page's device time, by doubling a batch: less does not pay for the wait of its pages
FULL_SAVING = 0.07  # against no batching: worth it when the pages wait anyway
WORSE = 1.05  # a doubled batch that makes a page dearer by this factor ends the measurement
LEARN = 0.2  # weight of the latest call

Area = int
Call = Callable[[int], float]


class CostModel:
    """Seconds of one call of denoise_step, by rows of the batch and area of the canvas in latent pixels.

    measured: seconds by rows at `area`. slots: rows of a call, at most; 0: chosen from what was measured.
    rest: what of a denoise_step is left without the guider, the part of denoise_reuse in both calls (`work`).
    Not safe for several threads at once.
    """

    rest = 1.0

    def __init__(self, measured: dict[int, float], area: Area, slots: int = 0) -> None:
        self._few = slots or choose_slots(measured)
        self.slots = slots or max(self._few, full_slots(measured))
        self._seconds: dict[Area, dict[int, float]] = {area: dict(measured)}

    def rows(self, ready: int) -> int:
        """Rows of the next call where so many pages could share it.

        A batch that saves little makes pages slow, but when there are enough of them to fill it they wait anyway.
        """
        return min(ready, self.slots if ready >= self.slots else self._few)

    def seconds(self, rows: int, area: Area) -> float:
        """Of a call; between measured batch sizes on a straight line, for unknown areas in proportion."""
        known = area if area in self._seconds else min(self._seconds, key=lambda other: abs(other - area))
        curve = self._seconds[known]
        sizes = sorted(curve)
        found = float(np.interp(rows, sizes, [curve[size] for size in sizes])) * area / known
        return found * max(1.0, rows / sizes[-1])

    def work(self, due: int, steps: int) -> float:
        """So many steps of pages that reuse the guider's features, `due` of them with the guider, in denoise_steps.

        The mean of a step: 1 is one denoise_step.
        """
        return self.rest + (1 - self.rest) * due / steps

    def page_step(self, area: Area) -> float:
        """Device seconds of one denoise_step of one page in a full batch."""
        return self.seconds(self.slots, area) / self.slots

    def observe(self, rows: int, area: Area, seconds: float, work: float = 1.0) -> None:
        """A step took so long: other work on the machine counts, for that is what the next page will meet.

        work: how much of a denoise_step it was; what is learnt is what the whole would have taken.
        """
        seconds /= work
        if area not in self._seconds:
            self._seconds[area] = {size: self.seconds(size, area) for size in self.curve()}
        curve = self._seconds[area]
        before = curve.get(rows, seconds)
        curve[rows] = before + LEARN * (seconds - before)

    def curve(self, area: Area | None = None) -> dict[int, float]:
        """Seconds by rows, as known now, of an area or the one that was measured first."""
        return dict(self._seconds[area if area is not None else next(iter(self._seconds))])


def measure(pack: Pack, slots: int = 0, most: int = 8, repeat: int = 3) -> CostModel:
    """Run denoise_step at the pack's first size with 1, 2, 4... rows, up to `slots` or while it is of use.

    Then, in a full batch, its two parts where the pack has them. An engine that takes one batch size only is used with
    that. EngineError where not even one row can be run.
    """
    width, height = (2 * side // pack.config.model.vae_factor for side in pack.config.pages.sizes[0])

    def call(rows: int) -> float:
        """Least seconds; one call goes before, which may compile."""
        return min(_steps(pack, rows, (height, width), repeat + 1)[1:])

    model = CostModel(measure_curve(call, slots or most, fixed=slots > 0), width * height, slots)
    if pack.reuses:  # with the guider in every other step, from the first on
        seconds = _steps(pack, model.slots, (height, width), 2 * repeat + 1, guider_steps=repeat + 1)
        model.rest = min(1.0, min(seconds[1::2]) / min(seconds[2::2]))
    return model


def measure_curve(call: Call, most: int, *, fixed: bool = False) -> dict[int, float]:
    """Seconds by rows, from call(rows), for 1, 2, 4... up to `most`; unless `fixed`, no further than it is of use."""
    measured = {1: call(1)}
    rows = 2
    while rows <= most:
        try:
            measured[rows] = call(rows)
        except EngineError:
            if fixed:
                raise
            break
        if not fixed and measured[rows] > WORSE * 2 * measured[rows // 2]:
            break
        rows *= 2
    return measured


def choose_slots(measured: dict[int, float]) -> int:
    """Rows of a call: doubled from 1 on while each doubling saves SAVING of the device time of a page."""
    slots = 1
    while 2 * slots in measured and _saves(measured, slots, 2 * slots, SAVING):
        slots *= 2
    return slots


def full_slots(measured: dict[int, float]) -> int:
    """Rows that serve the most pages a second, if that is FULL_SAVING better than one by one; else 1."""
    best = min(measured, key=lambda rows: measured[rows] / rows)
    return best if _saves(measured, 1, best, FULL_SAVING) else 1


def _saves(measured: dict[int, float], few: int, many: int, part: float) -> bool:
    return measured[many] / many <= (1 - part) * measured[few] / few


def _steps(pack: Pack, rows: int, latent: tuple[int, int], steps: int, guider_steps: int | None = None) -> list[float]:
    """Seconds of every step of a loop with this many pages of noise."""
    model = pack.config.model
    schedule = Schedule.create(steps, pack.config.scheduler_config)
    sample = np.random.default_rng(0).standard_normal((model.latent_channels, *latent)).astype(np.float32)
    condition = np.zeros((model.condition_planes, *latent), np.float32)
    slots = [Slot(sample, condition, schedule, guider_steps=guider_steps) for _ in range(rows)]
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        advance(pack.engine, slots)
        seconds.append(time.perf_counter() - start)
    return seconds
