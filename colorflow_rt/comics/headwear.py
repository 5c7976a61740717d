"""Hats and what else is worn on the head. Units: the head's radius is 1."""

import numpy as np

from colorflow_rt.comics.cast import Subject
from colorflow_rt.comics.shapes import Points, arc, curve, ellipse, limb, shape
from colorflow_rt.comics.sheet import Pen


def draw_headwear(pen: Pen, who: Subject) -> None:
    """What the character wears on its head, if anything."""
    for piece, part, shade in _HEADWEAR.get(who.looks["accessory"], ()):
        pen.fill(piece, who[part], shade=shade)


def draw_glasses(face: Pen, who: Subject) -> None:
    """Round rims of the accessory's colour."""
    for side in (-1, 1):
        rim = ellipse(side * 0.43, 0.18, 0.37, 0.36, 22)
        closed = np.concatenate([rim, rim[:2]])
        face.line(closed, 1.4 + 0.09 * face.scale / face.sheet.line)
        face.band(closed, 0.09, who["accessory"])
    face.line(shape("-.08 .14, .08 .14"), 2.0)


def _crescent(outer: tuple[float, float, float], inner: tuple[float, float, float], start: float, end: float) -> Points:
    """Between two arcs, each (y, rx, ry)."""
    return np.concatenate([arc(0, *outer, start, end, 16), arc(0, *inner, end, start, 16)])


_MAIN, _TRIM = "accessory", "trim"
_HEADWEAR: dict[str, tuple[tuple[Points, str, float], ...]] = {
    "cap": (
        (curve("-1.14 -.45, -1 -1.1, -.4 -1.52, .4 -1.52, 1 -1.1, 1.14 -.45, 0 -.62"), _MAIN, 0.2),
        (curve("-.95 -.5, 0 -.72, .95 -.5, .75 -.26, 0 -.36, -.75 -.26"), _TRIM, 0.0),
    ),
    "beanie": (
        (ellipse(0, -1.72, 0.28, 0.26, 16), _TRIM, 0.08),
        (curve("-1.14 -.5, -.95 -1.25, -.35 -1.6, .35 -1.6, .95 -1.25, 1.14 -.5, 0 -.7"), _MAIN, 0.2),
        (limb(-1.05, -0.55, 1.05, -0.55, 0.17, 0.17), _TRIM, 0.0),
    ),
    "witch hat": (
        (curve("-1.75 -.45, -.8 -.8, .8 -.8, 1.75 -.45, .8 -.42, 0 -.52, -.8 -.42"), _MAIN, 0.08),
        (curve("-.88 -.75, -.5 -1.5, .25 -2.35, .75 -2.3, .55 -1.9, .62 -1.4, .88 -.75, 0 -.66"), _MAIN, 0.2),
        (shape("-.88 -.72, -.78 -.98, .78 -.98, .88 -.72"), _TRIM, 0.0),
    ),
    "bow": (
        (curve(".55 -1.2, .05 -1.65, -.05 -.95"), _MAIN, 0.1),
        (curve(".55 -1.2, 1.15 -1.6, 1.2 -.85"), _MAIN, 0.1),
        (ellipse(0.57, -1.2, 0.15, 0.16, 12), _TRIM, 0.0),
    ),
    "headphones": (
        (_crescent((-0.1, 1.2, 1.38), (-0.1, 1.06, 1.2), 190, 350), _TRIM, 0.0),
        (ellipse(-1.12, 0.15, 0.27, 0.4, 18), _MAIN, 0.1),
        (ellipse(1.12, 0.15, 0.27, 0.4, 18), _MAIN, 0.1),
    ),
    "headband": (
        (shape("1 -.62, 1.75 -.85, 1.7 -.5, 1.85 -.3, 1 -.45"), _MAIN, 0.0),
        (_crescent((-0.2, 1.12, 0.5), (0.05, 1.1, 0.5), 200, 340), _MAIN, 0.0),
    ),
    "crown": (
        (shape("-.75 -.95, -.9 -1.75, -.42 -1.35, 0 -1.9, .42 -1.35, .9 -1.75, .75 -.95"), _MAIN, 0.14),
        (ellipse(0, -1.2, 0.14, 0.14, 12), _TRIM, 0.0),
    ),
}
