"""Whole figures: clothes, limbs and poses around a head. Units: the head's radius is 1, its centre (0, 0)."""

import math
from dataclasses import dataclass

import numpy as np

from colorflow_rt.comics.cast import Subject
from colorflow_rt.comics.head import draw_head, hair_behind, hair_in_front
from colorflow_rt.comics.patterns import PATTERNS
from colorflow_rt.comics.props import draw_prop
from colorflow_rt.comics.sheet import Pattern, Pen, Points, ellipse, limb, polygon, smooth, symmetric

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
    body = _scaled(pen, who)
    if who.looks["accessory"] == "cape":
        body.fill(
            symmetric((0, 1.2), (1.2, 1.5), (1.75, 3.2), (1.95, 5.4), (0.8, 5.7), (0, 5.5)),
            who["accessory"],
            shade=0.3,
        )
    hair_behind(pen, who)
    if legs:
        _draw_legs(body, who, pose)
    pen.fill(limb(0, 0.8, 0, 1.5, 0.33, 0.36), who["skin"], shade=0.2)
    _draw_arm(body, who, pose.left, mirror=True)
    _draw_torso(body, who)
    _draw_arm(body, who, pose.right, prop=pose.prop)
    _draw_neckwear(pen, who)
    draw_head(pen, who, pose.mood, pose.turn)
    hair_in_front(pen, who)


def _scaled(pen: Pen, who: Subject) -> Pen:
    return pen if who.build["width"] == 1 else pen  # widths are applied point by point in _wide


def _wide(points: Points, who: Subject) -> Points:
    return points * (who.build["width"], 1.0)


def _pattern(who: Subject) -> tuple[int, Pattern] | None:
    name = who.looks["pattern"]
    return None if name == "plain" else (who["pattern"], PATTERNS[name])


def _draw_torso(pen: Pen, who: Subject) -> None:
    kind = who.looks["upper"]
    trunk = _wide(
        symmetric((0, 1.22), (0.5, 1.25), (1.1, 1.5), (1.08, 2.1), (0.92, 2.9), (1.0, 3.6), (0, 3.68)), who
    )
    main = "inner" if kind in ("vest", "dungarees") else "upper"
    pen.fill(trunk, who[main], shade=0.25, pattern=_pattern(who) if main == "upper" else None)
    _UPPERS[kind](pen, who)


def _tee(pen: Pen, who: Subject) -> None:
    pen.fill(smooth([(-0.5, 1.2), (0, 1.34), (0.5, 1.2), (0.4, 1.42), (0, 1.62), (-0.4, 1.42)]), who["skin"])


def _sweater(pen: Pen, who: Subject) -> None:
    pen.fill(limb(-0.42, 1.3, 0.42, 1.3, 0.2, 0.2), who["upper"])
    pen.fill(limb(-0.92, 3.6, 0.92, 3.6, 0.16, 0.16), who["inner"])


def _jacket(pen: Pen, who: Subject) -> None:
    pen.fill(
        polygon((-0.42, 1.22), (0.42, 1.22), (0.34, 2.2), (0.42, 3.66), (-0.42, 3.66), (-0.34, 2.2)),
        who["inner"],
        shade=0.1,
    )
    for side in (-1.0, 1.0):
        pen.fill(
            polygon((0.35, 1.15), (0.85, 1.35), (0.6, 1.75), (0.72, 1.9), (0.33, 2.5)) * (side, 1),
            who["upper"],
        )


def _hoodie(pen: Pen, who: Subject) -> None:
    pen.fill(
        smooth(
            [
                (-1.0, 1.25),
                (-0.6, 0.95),
                (0, 1.35),
                (0.6, 0.95),
                (1.0, 1.25),
                (0.5, 1.75),
                (0, 1.85),
                (-0.5, 1.75),
            ]
        ),
        who["inner"],
        shade=0.1,
    )
    pen.fill(polygon((-0.5, 2.75), (0.5, 2.75), (0.75, 3.4), (-0.75, 3.4)), who["upper"])
    for side in (-0.18, 0.18):
        pen.line(polygon((side, 1.75), (side * 1.2, 2.35)), 1.2, who["upper"])


def _vest(pen: Pen, who: Subject) -> None:
    for side in (-1.0, 1.0):
        shape = polygon(
            (0.3, 1.25), (0.85, 1.35), (0.78, 2.1), (0.95, 3.1), (0.95, 3.65), (0.05, 3.65), (0.05, 2.5)
        )
        pen.fill(_wide(shape * (side, 1), who), who["upper"], shade=0.15, pattern=_pattern(who))
    for y in (2.75, 3.1, 3.4):
        pen.black(ellipse(0.16, y, 0.06, 0.06, 8), who["upper"])


def _dungarees(pen: Pen, who: Subject) -> None:
    for side in (-1.0, 1.0):
        pen.fill(polygon((0.45, 1.25), (0.7, 1.3), (0.62, 2.3), (0.4, 2.3)) * (side, 1), who["upper"])
    pen.fill(
        polygon((-0.68, 2.15), (0.68, 2.15), (0.98, 3.0), (1.02, 3.68), (-1.02, 3.68), (-0.98, 3.0)),
        who["upper"],
        shade=0.2,
        pattern=_pattern(who),
    )
    pen.fill(polygon((-0.3, 2.45), (0.3, 2.45), (0.26, 2.9), (-0.26, 2.9)), who["upper"])


def _robe(pen: Pen, who: Subject) -> None:
    pen.fill(polygon((-0.45, 1.2), (0.45, 1.2), (0.0, 2.1)), who["inner"])
    pen.fill(polygon((-0.55, 1.12), (-0.32, 1.12), (0.35, 2.6), (0.1, 2.8)), who["inner"])
    pen.fill(polygon((0.55, 1.12), (0.32, 1.12), (-0.5, 2.8), (-0.2, 2.9)), who["inner"])
    pen.fill(
        _wide(polygon((-0.96, 2.75), (0.96, 2.75), (0.98, 3.25), (-0.98, 3.25)), who),
        who["accessory"],
        shade=0.1,
    )


_UPPERS = {
    "tee": _tee,
    "sweater": _sweater,
    "jacket": _jacket,
    "hoodie": _hoodie,
    "vest": _vest,
    "dungarees": _dungarees,
    "robe": _robe,
}
_BARE = ("tee", "dungarees")  # forearms show


def _draw_arm(
    pen: Pen, who: Subject, name: str, *, mirror: bool = False, prop: Subject | None = None
) -> None:
    """One arm from the shoulder; the right of the page unless mirrored."""
    upper, fore = (math.radians(a) for a in ARMS["hold" if prop else name])
    side = pen.at(0, 0, mirror=mirror)
    x0, y0 = 1.0 * who.build["width"], 1.75
    x1, y1 = x0 + 1.05 * math.sin(upper), y0 + 1.05 * math.cos(upper)
    x2, y2 = x1 + 1.0 * math.sin(fore), y1 + 1.0 * math.cos(fore)
    kind = who.looks["upper"]
    sleeve = "inner" if kind in ("vest", "dungarees") else "upper"
    pattern = (
        _pattern(who)
        if sleeve == "upper" and who.looks["pattern"] in ("stripes", "pinstripes", "dots", "checks")
        else None
    )
    forearm = "skin" if kind in _BARE else sleeve
    hand = ellipse(x2 + 0.12 * math.sin(fore), y2 + 0.12 * math.cos(fore), 0.29, 0.29, 16)
    if prop is not None:
        draw_prop(side.at(x2 + 0.1, y2 - 0.35), prop)
    side.fill(hand, who["skin"], shade=0.1)
    wide = 0.46 if kind == "robe" else 0.34
    side.fill(
        limb(x1, y1, x2, y2, 0.3, 0.24 if kind in _BARE else wide - 0.04),
        who[forearm],
        shade=0.12,
        pattern=pattern if forearm != "skin" else None,
    )
    end = 0.7 if kind in _BARE else 1.0
    side.fill(
        limb(x0, y0, x0 + end * (x1 - x0), y0 + end * (y1 - y0), 0.38, 0.34),
        who[sleeve],
        shade=0.14,
        pattern=pattern,
    )
    if forearm != "skin":  # the elbow's seam hidden
        side.fill(ellipse(x1, y1, 0.27, 0.27, 12), who[sleeve], outline=0, pattern=pattern)


def _draw_legs(pen: Pen, who: Subject, pose: Pose) -> None:
    kind = who.looks["lower"]
    stride = 0.5 if pose.walking else 0.18
    bare = kind in ("shorts", "skirt", "long skirt")
    for side in (-1.0, 1.0):
        x0, x1 = side * 0.48 * who.build["width"], side * (0.48 + stride)
        pen.fill(ellipse(x1 + side * 0.14, 6.5, 0.5, 0.28, 18), who["shoes"], shade=0.1)
        pen.fill(limb(x0, 3.5, x1, 6.2, 0.42, 0.3), who["skin" if bare else "lower"], shade=0.18)
        if kind == "shorts":
            pen.fill(limb(x0, 3.5, (x0 + x1) / 2, 4.8, 0.5, 0.5), who["lower"], shade=0.18)
    pen.fill(
        _wide(symmetric((0, 3.2), (0.9, 3.2), (1.0, 3.7), (0.7, 4.1), (0, 4.2)), who), who["lower"], outline=0
    )
    hem = {"skirt": 4.9, "long skirt": 6.0}.get(kind)
    if hem is not None:
        pen.fill(
            _wide(
                symmetric(
                    (0, 3.3),
                    (0.95, 3.3),
                    (1.25, 4.1),
                    (1.6 + (hem - 4.9) * 0.15, hem),
                    (0.8, hem + 0.15),
                    (0, hem + 0.1),
                ),
                who,
            ),
            who["lower"],
            shade=0.3,
        )
        for x in np.linspace(-0.9, 0.9, 4).tolist():
            pen.line(polygon((x * 0.8, 4.0), (x * 1.2, hem)), 0.8, who["lower"])


def _draw_neckwear(pen: Pen, who: Subject) -> None:
    if who.looks["accessory"] == "scarf":
        pen.fill(polygon((0.3, 1.3), (0.75, 1.3), (0.85, 2.6), (0.4, 2.65)), who["accessory"], shade=0.1)
        pen.fill(limb(-0.6, 1.25, 0.6, 1.25, 0.33, 0.33), who["accessory"], shade=0.12)
    if who.looks["accessory"] == "cape":
        pen.fill(
            smooth([(-0.95, 1.3), (0, 1.15), (0.95, 1.3), (0.7, 1.65), (0, 1.75), (-0.7, 1.65)]),
            who["accessory"],
            shade=0.08,
        )
