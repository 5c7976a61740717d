"""Shapes as point arrays, [N, 2] float64, x to the right, y down."""

import functools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


def ellipse(x: float, y: float, rx: float, ry: float, n: int = 28) -> Points:
    """An ellipse as a polygon of n points."""
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([x + rx * np.cos(t), y + ry * np.sin(t)], 1)


def arc(x: float, y: float, rx: float, ry: float, start: float, end: float, n: int = 12) -> Points:
    """Part of an ellipse, from `start` to `end` degrees (clockwise on the page)."""
    t = np.radians(np.linspace(start, end, n))
    return np.stack([x + rx * np.cos(t), y + ry * np.sin(t)], 1)


def rectangle(x0: float, y0: float, x1: float, y1: float) -> Points:
    """An axis-aligned rectangle."""
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float64)


def polygon(*points: tuple[float, float]) -> Points:
    """The points as they are."""
    return np.array(points, np.float64)


@functools.cache
def shape(text: str) -> Points:
    """Points written as "x y, x y, ..."; read-only, kept."""
    points = np.array([pair.split() for pair in text.split(",")], np.float64)
    points.flags.writeable = False
    return points


@functools.cache
def curve(text: str) -> Points:
    """The closed smooth shape through the points of the text."""
    return smooth(shape(text))


@functools.cache
def open_curve(text: str) -> Points:
    """The open smooth line through the points of the text."""
    return smooth(shape(text), closed=False)


@functools.cache
def mirrored(text: str) -> Points:
    """The closed smooth shape of which the text is the right half, top to bottom (x = 0 is not doubled)."""
    right = shape(text)
    left = right[::-1][right[::-1, 0] != 0] * (-1, 1)
    return smooth(np.concatenate([right, left]))


def smooth(points: Sequence[tuple[float, float]] | Points, closed: bool = True, steps: int = 5) -> Points:
    """A Catmull-Rom spline through the points."""
    p = np.asarray(points, np.float64)
    around = np.concatenate([p[-1:], p, p[:2]] if closed else [p[:1], p, p[-1:]])
    a, b, c, d = (around[i : len(around) - 3 + i, None, :] for i in range(4))
    curve: Points = (_BASES[steps] @ np.concatenate([a, b, c, d], 1)).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, p[-1:]])


def limb(x0: float, y0: float, x1: float, y1: float, w0: float, w1: float) -> Points:
    """A tapering capsule from one point to another; w0 and w1 are its half widths there."""
    turn = math.degrees(math.atan2(y1 - y0, x1 - x0))
    return np.concatenate([arc(x0, y0, w0, w0, turn + 90, turn + 270, 7), arc(x1, y1, w1, w1, turn - 90, turn + 90, 7)])


def star(x: float, y: float, outer: float, inner: float, n: int, turn: float = -90) -> Points:
    """A star of n points."""
    t = np.radians(turn + np.arange(2 * n) * 180 / n)
    r = np.where(np.arange(2 * n) % 2 == 0, outer, inner)
    return np.stack([x + r * np.cos(t), y + r * np.sin(t)], 1)


def _basis(steps: int) -> NDArray[np.float64]:
    t = np.arange(steps) / steps
    return 0.5 * np.stack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2], 1)


_BASES = {steps: _basis(steps) for steps in (3, 5, 8)}
