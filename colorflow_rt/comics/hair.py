"""Hair by style: behind the head, fringe, and braids in front. Units: the head's radius is 1."""

import numpy as np

from colorflow_rt.comics.cast import Subject
from colorflow_rt.comics.shapes import Points, arc, curve, ellipse, mirrored, open_curve, shape, smooth, star
from colorflow_rt.comics.sheet import Pen


def hair_behind(pen: Pen, who: Subject) -> None:
    """The part of the hair that hangs behind head and body."""
    for lock in _BEHIND.get(who.looks["hair"], _BEHIND["short"]):
        pen.fill(lock, who["hair"], shade=0.22)


def draw_fringe(pen: Pen, who: Subject, turn: float) -> None:
    """The hair above the face; `turn` moves its edge sideways."""
    style = who.looks["hair"]
    if style == "mohawk":
        pen.fill(_MOHAWK, who["hair"], shade=0.2)
        return
    edge = _FRINGES["straight" if style == "bowl" else who.looks["fringe"]]
    crown = _SPIKES if style == "spiky" else _CROWN
    edge = edge + np.array([turn * 0.12, 0.0])
    pen.fill(np.concatenate([crown, edge]), who["hair"], shade=0.2)
    pen.line(arc(-0.3, -0.7, 0.45, 0.35, 200, 265, 6), 0.7, who["hair"])
    pen.line(arc(-0.25, -0.62, 0.3, 0.25, 205, 250, 5), 0.7, who["hair"])


def hair_in_front(pen: Pen, who: Subject) -> None:
    """Braids that fall over the shoulders."""
    if who.looks["hair"] != "braids":
        return
    for side in (-1, 1):
        for i in range(4):
            knot = ellipse(side * (1.02 + 0.06 * i), 0.75 + 0.42 * i, 0.3 - 0.02 * i, 0.27, 14)
            pen.fill(knot, who["hair"], shade=0.12)
        pen.fill(star(side * 1.28, 2.5, 0.3, 0.16, 4), who["accessory"])


def _curls() -> Points:
    turns = np.linspace(0, 2 * np.pi, 26, endpoint=False)
    radius = np.where(np.arange(26) % 2, 1.72, 1.55)
    return smooth(np.stack([radius * np.cos(turns), -0.35 + radius * np.sin(turns)], 1), steps=3)


_CROWN = open_curve("-1.06 -.2, -1.02 -.75, -.62 -1.2, 0 -1.34, .62 -1.2, 1.02 -.75, 1.06 -.2")
_SPIKES = shape(
    "-1.06 -.2, -1.5 -.75, -1.05 -.9, -1.05 -1.5, -.5 -1.25, -.15 -1.85, .2 -1.3, .75 -1.65, .8 -1.05, "
    "1.45 -.95, 1.06 -.2"
)
_MOHAWK = curve("-.35 -.45, -.5 -1.1, -.55 -1.75, -.2 -1.5, 0 -2.05, .2 -1.5, .55 -1.75, .5 -1.1, .35 -.45, 0 -.62")
_FRINGES = {  # lower edges, from the right ear to the left
    "straight": shape(
        "1.1 .35, .88 .3, .84 -.22, .45 -.3, .42 -.2, .05 -.3, 0 -.2, -.4 -.3, -.45 -.2, -.84 -.25, -.88 .3, -1.1 .35"
    ),
    "zigzag": shape(
        "1.12 .4, .9 .05, .78 -.4, .6 -.02, .42 -.5, .18 -.05, 0 -.52, -.25 -.02, -.45 -.5, -.7 0, "
        "-.8 -.4, -.92 .05, -1.12 .4"
    ),
    "parted": shape("1.14 .5, .92 .35, .8 -.15, .5 -.5, .12 -.85, 0 -.92, -.3 -.6, -.72 -.25, -.9 .35, -1.14 .5"),
    "swept": shape("1.1 .3, .92 0, .82 -.45, .66 -.72, .3 -.5, -.25 -.2, -.72 .06, -.86 .1, -.95 .45, -1.14 .45"),
    "high": shape("1.06 .2, .92 .1, .86 -.4, .55 -.72, 0 -.8, -.55 -.72, -.86 -.4, -.92 .1, -1.06 .2"),
}
_SHORT = mirrored("0 -1.3, .75 -1.12, 1.14 -.4, 1.12 .35, .75 .75, 0 .8")
_TAIL = curve(".95 -.55, 1.5 -.75, 2 -.1, 2.05 1, 1.75 2.1, 1.55 1.9, 1.4 1, 1.15 .2")
_PONY = curve(".2 -1.1, .9 -1.6, 1.8 -1.2, 2.2 .1, 1.9 1.7, 1.6 2, 1.5 .9, 1.2 0, .6 -.6")
_BEHIND: dict[str, list[Points]] = {
    "short": [_SHORT],
    "bowl": [mirrored("0 -1.35, .85 -1.1, 1.22 -.3, 1.2 .35, .8 .5, 0 .5")],
    "bob": [mirrored("0 -1.32, .8 -1.15, 1.2 -.4, 1.36 .5, 1.4 1.12, .9 1.22, 0 1.1")],
    "long": [mirrored("0 -1.34, .8 -1.15, 1.2 -.4, 1.35 .8, 1.5 2.2, 1.55 3.1, .9 3.3, 0 3.1")],
    "twintails": [_SHORT, _TAIL, _TAIL * (-1, 1)],
    "ponytail": [_PONY, _SHORT],
    "bun": [ellipse(0.1, -1.55, 0.55, 0.5), _SHORT],
    "buns": [ellipse(-0.85, -1.2, 0.48, 0.46), ellipse(0.85, -1.2, 0.48, 0.46), _SHORT],
    "afro": [_curls()],
    "spiky": [star(0, -0.35, 1.62, 1.12, 9, -70)],
    "mohawk": [],
}
