"""What a step costs: measured when a pack is taken up, corrected while it serves."""

import time
from collections.abc import Callable

import numpy as np

from colorflow_rt.denoise import Slot, advance
from colorflow_rt.engine import Engine
from colorflow_rt.errors import EngineError
from colorflow_rt.pack import Pack
from colorflow_rt.schedule import Schedule

SAVING = 0.1  # a doubled batch must save this part of a page's device time, or the batch is not doubled
LEARN = 0.2  # weight of the latest call

Area = int
Call = Callable[[int], float]


class CostModel:
    """Seconds of one call of denoise_step, by rows of the batch and area of the canvas in latent pixels.

    measured: seconds by rows at `area`. slots: rows of a call when there are pages enough. Not safe for several
    threads at once.
    """

    def __init__(self, measured: dict[int, float], area: Area, slots: int = 0) -> None:
        self.slots = slots or choose_slots(measured)
        self._seconds: dict[Area, dict[int, float]] = {area: dict(measured)}

    def seconds(self, rows: int, area: Area) -> float:
        """Of a call; between measured batch sizes on a straight line, for unknown areas in proportion."""
        known = area if area in self._seconds else min(self._seconds, key=lambda other: abs(other - area))
        curve = self._seconds[known]
        sizes = sorted(curve)
        found = float(np.interp(rows, sizes, [curve[size] for size in sizes])) * area / known
        return found * max(1.0, rows / sizes[-1])

    def page_step(self, area: Area) -> float:
        """Device seconds of one step of one page in a full batch."""
        return self.seconds(self.slots, area) / self.slots

    def observe(self, rows: int, area: Area, seconds: float) -> None:
        """A call took so long: other work on the machine counts, for that is what the next page will meet."""
        if area not in self._seconds:
            self._seconds[area] = {size: self.seconds(size, area) for size in self.curve()}
        curve = self._seconds[area]
        before = curve.get(rows, seconds)
        curve[rows] = before + LEARN * (seconds - before)

    def curve(self, area: Area | None = None) -> dict[int, float]:
        """Seconds by rows, as known now, of an area or the one that was measured first."""
        return dict(self._seconds[area if area is not None else next(iter(self._seconds))])


def measure(pack: Pack, slots: int = 0, most: int = 8, repeat: int = 3) -> CostModel:
    """Run denoise_step at the pack's first size with 1, 2, 4... rows, while doubling pays (or up to `slots`).

    An engine that takes one batch size only is used with that. EngineError where not even one row can be run.
    """
    width, height = (2 * side // pack.config.model.vae_factor for side in pack.config.pages.sizes[0])
    engine = pack.engine("denoise_step")

    def call(rows: int) -> float:
        return _call(engine, pack, rows, (height, width), repeat)

    return CostModel(measure_curve(call, slots or most, fixed=slots > 0), width * height, slots)


def measure_curve(call: Call, most: int, *, fixed: bool = False) -> dict[int, float]:
    """Seconds by rows, from call(rows), for 1, 2, 4... up to `most`, no further than doubling pays unless `fixed`."""
    measured = {1: call(1)}
    rows = 2
    while rows <= most:
        try:
            measured[rows] = call(rows)
        except EngineError:
            if fixed:
                raise
            break
        if not fixed and not _pays(measured, rows):
            break
        rows *= 2
    return measured


def choose_slots(measured: dict[int, float]) -> int:
    """Rows of a call: doubled from 1 on while each doubling saves SAVING of the device time of a page."""
    slots = 1
    while 2 * slots in measured and _pays(measured, 2 * slots):
        slots *= 2
    return slots


def _pays(measured: dict[int, float], rows: int) -> bool:
    return measured[rows] / rows <= (1 - SAVING) * measured[rows // 2] / (rows // 2)


def _call(engine: Engine, pack: Pack, rows: int, latent: tuple[int, int], repeat: int) -> float:
    """Least seconds of a call with this many pages of noise; one call goes before, which may compile."""
    channels = {spec.name: int(spec.shape[1]) for spec in engine.inputs if spec.name in ("sample", "condition")}
    schedule = Schedule.create(repeat + 1, pack.config.scheduler_config)
    sample = np.random.default_rng(0).standard_normal((channels["sample"], *latent)).astype(np.float32)
    condition = np.zeros((channels["condition"], *latent), np.float32)
    slots = [Slot(sample, condition, schedule) for _ in range(rows)]
    seconds = []
    for _ in range(repeat + 1):
        start = time.perf_counter()
        advance(engine, slots)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])
