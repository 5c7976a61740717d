"""What covers the trunk, by kind of upper clothes. Units: those of the figure."""

import numpy as np

from colorflow_rt.comics.cast import Subject
from colorflow_rt.comics.patterns import ALL_OVER, PATTERNS
from colorflow_rt.comics.shapes import Points, curve, ellipse, limb, mirrored, polygon, shape
from colorflow_rt.comics.sheet import Pattern, Pen

BARE_ARMS = ("tee", "dungarees")  # their sleeves end above the elbow
OTHER_SLEEVES = ("vest", "dungarees")  # their sleeves are those of what is worn below
Second = tuple[int, Pattern] | None


def widened(points: Points, who: Subject) -> Points:
    """The points at this figure's width."""
    return points * (who.build["width"], 1.0)


def sleeve_look(who: Subject) -> tuple[int, Second]:
    """Region and pattern of the sleeves; signs on the chest are not repeated there."""
    if who.looks["upper"] in OTHER_SLEEVES:
        return who["inner"], None
    return who["upper"], _pattern(who) if who.looks["pattern"] in ALL_OVER else None


def draw_trunk(pen: Pen, who: Subject) -> None:
    """Trunk and upper clothes."""
    kind = who.looks["upper"]
    trunk = mirrored("0 1.22, .5 1.25, 1.1 1.5, 1.08 2.1, .92 2.9, 1 3.6, 0 3.68")
    below = kind in OTHER_SLEEVES
    second = None if below else _pattern(who)
    pen.fill(widened(trunk, who), who["inner" if below else "upper"], shade=0.25, pattern=second)
    _UPPERS[kind](pen, who)


def draw_neckwear(pen: Pen, who: Subject) -> None:
    """A scarf, or the collar of a cape."""
    part = who["accessory"]
    if who.looks["accessory"] == "scarf":
        pen.fill(shape(".3 1.3, .75 1.3, .85 2.6, .4 2.65"), part, shade=0.1)
        pen.fill(limb(-0.6, 1.25, 0.6, 1.25, 0.33, 0.33), part, shade=0.12)
    if who.looks["accessory"] == "cape":
        pen.fill(curve("-.95 1.3, 0 1.15, .95 1.3, .7 1.65, 0 1.75, -.7 1.65"), part, shade=0.08)


def draw_cape(pen: Pen, who: Subject) -> None:
    """The cape behind the figure."""
    if who.looks["accessory"] == "cape":
        cape = mirrored("0 1.2, 1.2 1.5, 1.75 3.2, 1.95 5.4, .8 5.7, 0 5.5")
        pen.fill(cape, who["accessory"], shade=0.3)


def draw_skirt(pen: Pen, who: Subject, hem: float) -> None:
    """A skirt down to y = hem."""
    flare = 1.6 + (hem - 4.9) * 0.15
    right = [[0, 3.3], [0.95, 3.3], [1.25, 4.1], [flare, hem], [flare / 2, hem + 0.15], [0, hem + 0.1]]
    text = ", ".join(f"{x:g} {y:g}" for x, y in right)
    pen.fill(widened(mirrored(text), who), who["lower"], shade=0.3)
    for x in np.linspace(-0.9, 0.9, 4).tolist():
        pen.line(polygon((x * 0.8, 4.0), (x * 1.2, hem)), 0.8, who["lower"])


def _pattern(who: Subject) -> Second:
    name = who.looks["pattern"]
    return None if name == "plain" else (who["pattern"], PATTERNS[name])


def _both_sides(points: Points) -> tuple[Points, Points]:
    return points * (-1.0, 1.0), points


def _tee(pen: Pen, who: Subject) -> None:
    pen.fill(curve("-.5 1.2, 0 1.34, .5 1.2, .4 1.42, 0 1.62, -.4 1.42"), who["skin"])


def _sweater(pen: Pen, who: Subject) -> None:
    pen.fill(limb(-0.42, 1.3, 0.42, 1.3, 0.2, 0.2), who["upper"])
    pen.fill(limb(-0.92, 3.6, 0.92, 3.6, 0.16, 0.16), who["inner"])


def _jacket(pen: Pen, who: Subject) -> None:
    pen.fill(shape("-.42 1.22, .42 1.22, .34 2.2, .42 3.66, -.42 3.66, -.34 2.2"), who["inner"], shade=0.1)
    for lapel in _both_sides(shape(".35 1.15, .85 1.35, .6 1.75, .72 1.9, .33 2.5")):
        pen.fill(lapel, who["upper"])


def _hoodie(pen: Pen, who: Subject) -> None:
    hood = curve("-1 1.25, -.6 .95, 0 1.35, .6 .95, 1 1.25, .5 1.75, 0 1.85, -.5 1.75")
    pen.fill(hood, who["inner"], shade=0.1)
    pen.fill(shape("-.5 2.75, .5 2.75, .75 3.4, -.75 3.4"), who["upper"])
    for string in _both_sides(shape(".18 1.75, .22 2.35")):
        pen.line(string, 1.2, who["upper"])


def _vest(pen: Pen, who: Subject) -> None:
    front = shape(".3 1.25, .85 1.35, .78 2.1, .95 3.1, .95 3.65, .05 3.65, .05 2.5")
    for half in _both_sides(front):
        pen.fill(widened(half, who), who["upper"], shade=0.15, pattern=_pattern(who))
    for y in (2.75, 3.1, 3.4):
        pen.black(ellipse(0.16, y, 0.06, 0.06, 8), who["upper"])


def _dungarees(pen: Pen, who: Subject) -> None:
    for strap in _both_sides(shape(".45 1.25, .7 1.3, .62 2.3, .4 2.3")):
        pen.fill(strap, who["upper"])
    bib = shape("-.68 2.15, .68 2.15, .98 3, 1.02 3.68, -1.02 3.68, -.98 3")
    pen.fill(bib, who["upper"], shade=0.2, pattern=_pattern(who))
    pen.fill(shape("-.3 2.45, .3 2.45, .26 2.9, -.26 2.9"), who["upper"])


def _robe(pen: Pen, who: Subject) -> None:
    for collar in ("-.45 1.2, .45 1.2, 0 2.1", "-.55 1.12, -.32 1.12, .35 2.6, .1 2.8"):
        pen.fill(shape(collar), who["inner"])
    pen.fill(shape(".55 1.12, .32 1.12, -.5 2.8, -.2 2.9"), who["inner"])
    sash = shape("-.96 2.75, .96 2.75, .98 3.25, -.98 3.25")
    pen.fill(widened(sash, who), who["lower"], shade=0.1)


_UPPERS = {
    "tee": _tee,
    "sweater": _sweater,
    "jacket": _jacket,
    "hoodie": _hoodie,
    "vest": _vest,
    "dungarees": _dungarees,
    "robe": _robe,
}
