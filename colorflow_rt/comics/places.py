"""What all scenes are made of."""

import numpy as np

from colorflow_rt.comics.shapes import rectangle
from colorflow_rt.comics.sheet import Pen

SPAN = 2.4  # scenes reach this far to both sides, in panel heights
Rng = np.random.Generator


def places(rng: Rng, step: float, jitter: float = 0.3) -> list[float]:
    """Positions along the scene, about `step` apart."""
    return [float(x + rng.uniform(-jitter, jitter) * step) for x in np.arange(-SPAN, SPAN, step)]


def backdrop(pen: Pen, part: int) -> None:
    """Sky or wall over all of the panel."""
    pen.fill(rectangle(-SPAN - 1, -1, SPAN + 1, 1.2), part, outline=0)


def strip(pen: Pen, top: float, bottom: float, part: int, shade: float = 0.0) -> None:
    """A level strip right through the scene: floor, road, counter."""
    pen.fill(rectangle(-SPAN, top, SPAN, bottom), part, shade=shade)
