"""Whole figures: limbs and poses between head and clothes. Units: the head's radius is 1, its centre (0, 0)."""

import math
from dataclasses import dataclass

from colorflow_rt.comics.cast import Subject
from colorflow_rt.comics.clothes import (
    BARE_ARMS,
    draw_cape,
    draw_neckwear,
    draw_skirt,
    draw_trunk,
    sleeve_look,
    widened,
)
from colorflow_rt.comics.hair import hair_behind, hair_in_front
from colorflow_rt.comics.head import draw_head
from colorflow_rt.comics.props import draw_prop
from colorflow_rt.comics.shapes import ellipse, limb, mirrored
from colorflow_rt.comics.sheet import Pen

# Upper arm and forearm as degrees from straight down, outward.
ARMS: dict[str, tuple[float, float]] = {
    "down": (14, 4),
    "hip": (42, -52),
    "wave": (75, 165),
    "point": (70, 95),
    "cheer": (140, 170),
    "chest": (22, -115),
    "hold": (28, 125),
}
TOP, BUST, WAIST, FEET = -1.75, 2.5, 3.9, 7.0  # where pictures of a figure begin and end
HEMS = {"skirt": 4.9, "long skirt": 6.0}


@dataclass(frozen=True)
class Pose:
    """How a figure stands: arms by name, mood of the face, sideways turn (-1 to 1), what it holds."""

    left: str
    right: str
    mood: str
    turn: float
    walking: bool = False
    prop: Subject | None = None


def draw_figure(pen: Pen, who: Subject, pose: Pose, *, legs: bool = True) -> None:
    """The figure from back to front."""
    draw_cape(pen, who)
    hair_behind(pen, who)
    if legs:
        _draw_legs(pen, who, pose)
    pen.fill(limb(0, 0.8, 0, 1.5, 0.33, 0.36), who["skin"], shade=0.2)
    _draw_arm(pen.at(0, 0, mirror=True), who, pose.left, None)
    draw_trunk(pen, who)
    _draw_arm(pen, who, pose.right, pose.prop)
    draw_neckwear(pen, who)
    draw_head(pen, who, pose.mood, pose.turn)
    hair_in_front(pen, who)


def _draw_arm(pen: Pen, who: Subject, name: str, prop: Subject | None) -> None:
    """The arm on the side of positive x, with what it holds."""
    upper, fore = (math.radians(a) for a in ARMS["hold" if prop else name])
    x0, y0 = who.build["width"], 1.75
    x1, y1 = x0 + 1.05 * math.sin(upper), y0 + 1.05 * math.cos(upper)
    x2, y2 = x1 + math.sin(fore), y1 + math.cos(fore)
    if prop is not None:
        draw_prop(pen.at(x2 + 0.1, y2 - 0.35), prop)
    pen.fill(
        ellipse(x2 + 0.12 * math.sin(fore), y2 + 0.12 * math.cos(fore), 0.29, 0.29, 16),
        who["skin"],
        shade=0.1,
    )
    _draw_sleeve(pen, who, (x0, y0), (x1, y1), (x2, y2))


def _draw_sleeve(
    pen: Pen,
    who: Subject,
    shoulder: tuple[float, float],
    elbow: tuple[float, float],
    wrist: tuple[float, float],
) -> None:
    sleeve, pattern = sleeve_look(who)
    if who.looks["upper"] in BARE_ARMS:
        end = tuple(s + 0.7 * (e - s) for s, e in zip(shoulder, elbow, strict=True))
        pen.fill(limb(*elbow, *wrist, 0.29, 0.24), who["skin"], shade=0.12)
        pen.fill(limb(*shoulder, end[0], end[1], 0.4, 0.36), sleeve, shade=0.14, pattern=pattern)
        return
    wide = 0.42 if who.looks["upper"] == "robe" else 0.3
    pen.fill(limb(*elbow, *wrist, 0.31, wide), sleeve, shade=0.12, pattern=pattern)
    pen.fill(limb(*shoulder, *elbow, 0.4, 0.33), sleeve, shade=0.14, pattern=pattern)
    pen.fill(ellipse(*elbow, 0.26, 0.26, 12), sleeve, outline=0, pattern=pattern)  # hides the elbow's seam


def _draw_legs(pen: Pen, who: Subject, pose: Pose) -> None:
    kind, width = who.looks["lower"], who.build["width"]
    stride = 0.5 if pose.walking else 0.18
    for side in (-1.0, 1.0):
        x0, x1 = side * 0.48 * width, side * (0.48 + stride)
        pen.fill(ellipse(x1 + side * 0.14, 6.5, 0.5, 0.28, 18), who["shoes"], shade=0.1)
        pen.fill(limb(x0, 3.5, x1, 6.2, 0.42, 0.3), who["lower" if kind == "trousers" else "skin"], shade=0.18)
        if kind == "shorts":
            pen.fill(limb(x0, 3.5, (x0 + x1) / 2, 4.8, 0.5, 0.5), who["lower"], shade=0.18)
    hips = mirrored("0 3.2, .9 3.2, 1 3.7, .7 4.1, 0 4.2")
    pen.fill(widened(hips, who), who["lower"], outline=0)
    if kind in HEMS:
        draw_skirt(pen, who, HEMS[kind])
