"""The loop: noise becomes latents, one step of the U-Net after another (docs/pack.md).

A `Slot` is one canvas on its way. `advance` moves any slots by one step in one batch, each from where it
stands, so a server may let canvases join and leave at every step; `denoise` is the loop over it for a batch
that starts and ends together. A step is one call of `denoise_step`; a slot that leaves the guider out of some
of its steps goes by `denoise_reuse` in all of them, after `guider` in those that have it.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colorflow_rt.engine import Bindable, BoundLoop, Engine
from colorflow_rt.engine.protocol import Preview
from colorflow_rt.errors import Cancelled, EngineError
from colorflow_rt.schedule import Schedule

Floats = NDArray[np.float32]
Row = dict[str, Floats]

Engines = Callable[[str], Engine]
"""engines(graph): as `Pack.engine`; only the graphs that the slots go by are asked for"""


@dataclass(eq=False)
class Slot:
    """One canvas and how far it is: `step` of its schedule's steps are done.

    sample f32[C,h,w]: the noise at first. condition f32[K,h,w]. x0_prev1, x0_prev2 f32[C,h,w]: the last two
    predictions of the picture. They start as zeros: their coefficients are then zero, but NaN times 0 is NaN.
    guidance_steps: guidance is left out (its scale is 1) from this step on; None: in no step.
    guider_steps: in how many steps the guider is evaluated; None, or as many as there are: in every step.
    features: what the guider said last, by name; kept only while later steps need it.
    """

    sample: Floats
    condition: Floats
    schedule: Schedule
    guidance_scale: float = 1.0
    step: int = 0
    guidance_steps: int | None = None
    guider_steps: int | None = None
    x0_prev1: Floats = field(init=False)
    x0_prev2: Floats = field(init=False)
    features: Row = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.x0_prev1 = self.x0_prev2 = np.zeros_like(self.sample)

    @property
    def done(self) -> bool:
        return self.step == len(self.schedule)

    @property
    def reuses(self) -> bool:
        """Whether some of its steps go by features of an earlier one."""
        return self.guider_steps is not None and self.guider_steps < len(self.schedule)

    @property
    def guider_is_due(self) -> bool:
        """Whether its next step evaluates the guider."""
        return self.guider_steps is None or self.step in spread(self.guider_steps, len(self.schedule))

    def feeds(self) -> dict[str, NDArray[Any]]:
        """This slot's row of every input that a graph of the loop may have."""
        guided = self.guidance_steps is None or self.step < self.guidance_steps
        coefficients = {
            "predictor": self.schedule.predictor[self.step].astype(np.float32),
            "denoiser": self.schedule.denoiser[self.step].astype(np.float32),
            "corrector": self.schedule.corrector[self.step].astype(np.float32),
        }
        state = {
            "sample": self.sample,
            "x0_prev1": self.x0_prev1,
            "x0_prev2": self.x0_prev2,
            "condition": self.condition,
            "timestep": self.schedule.timesteps[self.step],
            "guidance_scale": np.asarray(self.guidance_scale if guided else 1.0, dtype=np.float32),
        }
        return coefficients | state | self.features

    def move(self, sample_next: Floats, x0: Floats) -> None:
        self.sample, self.x0_prev1, self.x0_prev2 = sample_next, x0, self.x0_prev1
        self.step += 1
        if self.done:
            self.features = {}

    def result(self) -> Floats:
        """The last prediction of the picture, f32[C,h,w]; EngineError where it is not finite."""
        if not np.isfinite(self.x0_prev1).all():
            raise EngineError(
                f"denoise_step gave values that are not finite by step {self.step} of {len(self.schedule)}: "
                "the engine's precision does not carry this model, use another backend"
            )
        return self.x0_prev1


def spread(count: int, steps: int) -> list[int]:
    """`count` of the numbers 0 .. steps-1, evenly, with both ends; all of them where count is steps or more."""
    if count >= steps:
        return list(range(steps))
    return [i * (steps - 1) // (count - 1) for i in range(count)]


def advance(engines: Engines, slots: Sequence[Slot]) -> None:
    """Move every slot by one step, those of one kind in one call; none may be done, all have one latent size.

    If a call fails no slot has moved, so that the step may be tried again.
    """
    whole = [slot for slot in slots if not slot.reuses]
    parted = [slot for slot in slots if slot.reuses]
    due = [slot for slot in parted if slot.guider_is_due]
    for slot, features in zip(due, _rows(engines, "guider", due), strict=True):
        slot.features = features
    moved = _rows(engines, "denoise_step", whole) + _rows(engines, "denoise_reuse", parted)
    for slot, row in zip(whole + parted, moved, strict=True):
        slot.move(row["sample_next"], row["x0"])


def denoise(
    engines: Engines,
    noise: Floats,
    condition: Floats,
    schedule: Schedule,
    guidance_scale: float = 1.0,
    on_step: Callable[[int, int, Floats], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Floats:
    """Latents f32[B,C,h,w] from noise f32[B,C,h,w] under condition f32[B,K,h,w]: `run` from the first step on.

    guidance_scale matters only to graphs with text.
    """
    slots = [Slot(*row, schedule, guidance_scale) for row in zip(noise, condition, strict=True)]
    return run(engines, slots, on_step, cancelled)


def run(
    engines: Engines,
    slots: Sequence[Slot],
    on_step: Callable[[int, int, Floats], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Floats:
    """Latents f32[B,C,h,w] of slots that start and end together, on one schedule.

    After each step, on_step(steps done, steps in all, x0 f32[B,C,h,w]) may show a preview. Before each step
    cancelled() is asked; if true, Cancelled is raised. An engine that can keep the loop's state on its device does
    so: then previews come a step or two later, all the same in order.
    """
    steps = len(slots[0].schedule)
    engine = None if any(slot.reuses for slot in slots) else engines("denoise_step")
    if isinstance(engine, Bindable):
        names = [spec.name for spec in engine.inputs]
        bound = engine.bind(_stacked(slots, names))
        if bound is not None:
            with bound as loop:
                return _run_bound(loop, names, slots, on_step, cancelled)
    for done in range(steps):
        if cancelled is not None and cancelled():
            raise Cancelled(f"cancelled after {done} of {steps} steps")
        advance(engines, slots)
        if on_step is not None:
            on_step(done + 1, steps, np.stack([slot.x0_prev1 for slot in slots]))
    return np.stack([slot.result() for slot in slots])


def _run_bound(
    loop: BoundLoop,
    names: Sequence[str],
    slots: Sequence[Slot],
    on_step: Callable[[int, int, Floats], None] | None,
    cancelled: Callable[[], bool] | None,
) -> Floats:
    """`run` without the state leaving the engine's device."""
    steps, under_way = len(slots[0].schedule), deque[tuple[int, Preview]]()
    for done in range(steps):
        if cancelled is not None and cancelled():
            raise Cancelled(f"cancelled after {done} of {steps} steps")
        loop.step(_stacked(slots, names))
        for slot in slots:
            slot.step += 1
        if on_step is not None:
            under_way.append((done + 1, loop.preview()))
            while under_way and (under_way[0][1].ready or done + 1 == steps):
                number, preview = under_way.popleft()
                on_step(number, steps, preview.wait())
    for slot, x0 in zip(slots, loop.x0(), strict=True):
        slot.x0_prev1 = x0
    return np.stack([slot.result() for slot in slots])


def _rows(engines: Engines, graph: str, slots: Sequence[Slot]) -> list[Row]:
    """What a graph puts out for each slot, in one call; none for no slots. The rows look into one array."""
    if not slots:
        return []
    engine = engines(graph)
    found = engine(_stacked(slots, [spec.name for spec in engine.inputs]))
    return [{name: array[i] for name, array in found.items()} for i in range(len(slots))]


def _stacked(slots: Sequence[Slot], names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """These inputs of a graph, a row of each slot; of one slot they are not copied."""
    rows = [slot.feeds() for slot in slots]
    if len(rows) == 1:
        return {name: np.asarray(rows[0][name])[np.newaxis] for name in names}
    return {name: np.stack([row[name] for row in rows]) for name in names}
