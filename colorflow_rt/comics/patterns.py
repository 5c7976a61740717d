"""Patterns of clothes, walls and props: each draws its second colour into a mask (see sheet.Pattern)."""

import numpy as np
from PIL import ImageDraw

from colorflow_rt.comics.sheet import Pattern, Pen, Points, ellipse, polygon, rectangle, star

REACH = 7.0  # patterns cover -REACH..REACH in the units of the pen


def _stripes(step: float, share: float, upright: bool) -> list[Points]:
    bands = []
    for low in np.arange(-REACH, REACH, step).tolist():
        band = rectangle(-REACH, low, REACH, low + step * share)
        bands.append(band[:, ::-1].copy() if upright else band)
    return bands


def _dots(step: float, radius: float) -> list[Points]:
    places = np.arange(-REACH / 2, REACH / 2, step).tolist()
    return [
        ellipse(x + (step / 2 if row % 2 else 0), y, radius * step, radius * step, 9)
        for row, y in enumerate(places)
        for x in places
    ]


def _shapes(shapes: list[Points]) -> Pattern:
    stacked = [len(s) for s in shapes]
    joined = np.concatenate(shapes)
    ends = np.cumsum(stacked)[:-1]

    def draw_shapes(pen: Pen, draw: ImageDraw.ImageDraw, size: tuple[int, int]) -> None:
        for shape in np.split(pen.to_pixels(joined), ends):
            (x0, y0), (x1, y1) = shape[0], shape[len(shape) // 2]
            reach = abs(x1 - x0) + abs(y1 - y0)
            if max(x0, x1) + reach < 0 or max(y0, y1) + reach < 0:
                continue
            if min(x0, x1) - reach > size[0] or min(y0, y1) - reach > size[1]:
                continue
            draw.polygon(shape.ravel().tolist(), 255)

    return draw_shapes


def _heart(x: float, y: float, r: float) -> Points:
    t = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    return np.stack(
        [
            x + r * np.sin(t) ** 3,
            y - r * (13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16,
        ],
        1,
    )


def emblem(kind: int) -> Pattern:
    """One large sign on the chest: star, heart, diamond, ring or zigzag."""
    shapes = [
        star(0, 2.35, 0.62, 0.26, 5),
        _heart(0, 2.35, 0.5),
        polygon((0, 1.75), (0.45, 2.4), (0, 3.05), (-0.45, 2.4)),
        ellipse(0, 2.35, 0.5, 0.5),
        polygon(
            (-2, 2.2),
            (-1, 2.5),
            (0, 2.2),
            (1, 2.5),
            (2, 2.2),
            (2, 2.6),
            (1, 2.9),
            (0, 2.6),
            (-1, 2.9),
            (-2, 2.6),
        ),
    ]
    return _shapes([shapes[kind % len(shapes)]])


PATTERNS: dict[str, Pattern] = {
    "stripes": _shapes(_stripes(0.5, 0.5, upright=False)),
    "pinstripes": _shapes(_stripes(0.42, 0.4, upright=True)),
    "dots": _shapes(_dots(0.55, 0.28)),
    "checks": _shapes(_stripes(0.6, 0.35, upright=False) + _stripes(0.6, 0.35, upright=True)),
    "star": emblem(0),
    "heart": emblem(1),
    "diamond": emblem(2),
    "ring": emblem(3),
    "zigzag": emblem(4),
}
