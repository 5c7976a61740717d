"""Patterns of clothes, walls and props: each gives the figures of its second colour (see sheet.Pattern)."""

import numpy as np

from colorflow_rt.comics.shapes import Points, ellipse, rectangle, shape, star
from colorflow_rt.comics.sheet import Pattern, Pen

REACH = 10.0  # patterns cover -REACH..REACH in the units of the pen


def _stripes(step: float, share: float, upright: bool) -> list[Points]:
    lows = np.arange(-REACH, REACH, step).tolist()
    bands = [rectangle(-REACH, low, REACH, low + step * share) for low in lows]
    return [band[:, ::-1].copy() for band in bands] if upright else bands


def _dots(step: float, radius: float) -> list[Points]:
    places = np.arange(-REACH / 2, REACH / 2, step).tolist()
    return [
        ellipse(x + (step / 2 if row % 2 else 0), y, radius * step, radius * step, 9)
        for row, y in enumerate(places)
        for x in places
    ]


def _heart(y: float, r: float) -> Points:
    t = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    height = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([r * np.sin(t) ** 3, y - r * height / 16], 1)


def _drawing(*figures: Points) -> Pattern:
    """The pattern of these figures, in the units of the pen; those that the mask cannot show are left out."""
    joined = np.concatenate(figures)
    ends = np.cumsum([len(f) for f in figures])[:-1]

    def figures_in(pen: Pen, size: tuple[int, int]) -> list[Points]:
        pixels = np.split(pen.to_pixels(joined), ends)
        return [p for p in pixels if p.max(0).min() >= 0 and bool(np.all(p.min(0) < size))]

    return figures_in


ALL_OVER: dict[str, Pattern] = {
    "stripes": _drawing(*_stripes(0.5, 0.5, upright=False)),
    "pinstripes": _drawing(*_stripes(0.42, 0.4, upright=True)),
    "dots": _drawing(*_dots(0.55, 0.28)),
    "checks": _drawing(*_stripes(0.6, 0.35, upright=False), *_stripes(0.6, 0.35, upright=True)),
}
ON_CHEST: dict[str, Pattern] = {  # one large sign
    "star": _drawing(star(0, 2.35, 0.62, 0.26, 5)),
    "heart": _drawing(_heart(2.35, 0.5)),
    "diamond": _drawing(shape("0 1.75, .45 2.4, 0 3.05, -.45 2.4")),
    "ring": _drawing(ellipse(0, 2.35, 0.5, 0.5)),
    "zigzag": _drawing(shape("-2 2.2, -1 2.5, 0 2.2, 1 2.5, 2 2.2, 2 2.6, 1 2.9, 0 2.6, -1 2.9, -2 2.6")),
}
PATTERNS = ALL_OVER | ON_CHEST
