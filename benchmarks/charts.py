"""Small line charts in a grid of panels, drawn with Pillow: for the pictures in docs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from colorflow_rt.files import atomic_path

COLORS = ("#0b6fb8", "#d1711c", "#3b8f4a", "#8a4fa3", "#777777", "#c23b4e", "#b59a00", "#17a3a3")
SCALE = 2  # drawn so much larger than its units, for sharp letters
WIDTH, HEIGHT = 330, 230
LEFT, TOP, RIGHT, BOTTOM = 56, 30, 10, 40

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """title, words under the x axis, lines by name; log: the y axis. Lines of one name have one colour."""

    title: str
    x: str
    lines: dict[str, Points]
    log: bool = False


def draw(path: Path, panels: Sequence[Sequence[Panel]]) -> None:
    """Write a PNG: rows of panels, and a legend below."""
    names = list(dict.fromkeys(name for row in panels for panel in row for name in panel.lines))
    colors = {name: COLORS[i % len(COLORS)] for i, name in enumerate(names)}
    width, height = WIDTH * max(len(row) for row in panels), HEIGHT * len(panels)
    places = _legend(names, width)
    image = Image.new("RGB", (width * SCALE, (height + 10 + places[-1][1]) * SCALE), "white")
    pen = _Pen(ImageDraw.Draw(image))
    for i, row in enumerate(panels):
        for j, panel in enumerate(row):
            _panel(pen, panel, (j * WIDTH, i * HEIGHT), colors)
    for name, (left, down) in zip(names, places, strict=True):
        pen.line([(left, height + down), (left + 24, height + down)], colors[name], 2)
        pen.text((left + 30, height + down), name, "lm")
    with atomic_path(path) as temporary:
        image.save(temporary, "PNG", optimize=True)


def _legend(names: Sequence[str], width: int) -> list[tuple[int, int]]:
    """Where each name goes, from the left and below the panels, in as many rows as are needed."""
    places, left, down = [], LEFT, 10
    for name in names:
        room = 60 + 7 * len(name)
        if left + room > width and left > LEFT:
            left, down = LEFT, down + 18
        places.append((left, down))
        left += room
    return places


class _Pen:
    """Draws in units; SCALE is its own matter."""

    def __init__(self, canvas: ImageDraw.ImageDraw) -> None:
        self._canvas = canvas

    def line(self, points: Points, color: str, width: float) -> None:
        self._canvas.line([(x * SCALE, y * SCALE) for x, y in points], color, round(width * SCALE), "curve")

    def text(self, at: tuple[float, float], words: str, anchor: str, size: int = 11) -> None:
        font = ImageFont.load_default(size * SCALE)
        self._canvas.text((at[0] * SCALE, at[1] * SCALE), words, "#222222", font, anchor)


def _panel(pen: _Pen, panel: Panel, at: tuple[int, int], colors: dict[str, str]) -> None:
    points = [point for line in panel.lines.values() for point in line]
    low_x, high_x = min(x for x, _ in points), max(x for x, _ in points)
    ticks = _ticks(min(y for _, y in points), max(y for _, y in points), panel.log)
    left, right = at[0] + LEFT, at[0] + WIDTH - RIGHT
    top, bottom = at[1] + TOP, at[1] + HEIGHT - BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        value, low, high = (_up(v, panel.log) for v in (y, ticks[0], ticks[-1]))
        across = (x - low_x) / ((high_x - low_x) or 1)
        return left + across * (right - left), bottom - (value - low) / ((high - low) or 1) * (bottom - top)

    pen.text(((left + right) / 2, at[1] + 14), panel.title, "mm", 12)
    pen.text(((left + right) / 2, bottom + 28), panel.x, "mm")
    for tick in ticks:
        height = place(low_x, tick)[1]
        pen.line([(left, height), (right, height)], "#dddddd", 0.5)
        pen.text((left - 5, height), f"{tick:,g}", "rm")
    for x in _few(sorted({x for x, _ in points})):
        pen.text((place(x, ticks[0])[0], bottom + 10), f"{x:g}", "mm")
    for name, line in panel.lines.items():
        pen.line([place(x, y) for x, y in line], colors[name], 2)


def _up(value: float, log: bool) -> float:
    return math.log10(value) if log else value


def _few(values: list[float]) -> list[float]:
    """At most six of them, evenly picked, so that their figures do not touch."""
    step = max(1, math.ceil(len(values) / 6))
    return values[::step]


def _ticks(low: float, high: float, log: bool) -> list[float]:
    if log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        return [10.0**power for power in range(first, max(last, first + 1) + 1)]
    step = 10 ** math.floor(math.log10(max(high, 1e-9)))
    step = next(step * part for part in (0.2, 0.5, 1, 2, 5) if high / (step * part) <= 5)
    return [step * i for i in range(math.ceil(high / step) + 1)]
