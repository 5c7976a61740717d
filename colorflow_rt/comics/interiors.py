"""Backgrounds indoors (units: see scenes)."""

import numpy as np

from colorflow_rt.comics.cast import Subject
from colorflow_rt.comics.patterns import PATTERNS
from colorflow_rt.comics.places import SPAN, Rng, backdrop, places, strip
from colorflow_rt.comics.shapes import curve, ellipse, open_curve, rectangle, shape
from colorflow_rt.comics.sheet import Pattern, Pen


def draw_room(pen: Pen, scene: Subject, rng: Rng) -> None:
    """A living room with windows, pictures, chests and lamps."""
    paper = PATTERNS[str(rng.choice(["pinstripes", "dots", "stripes"]))]
    quarter = pen.at(0, 0, 0.25)
    quarter.fill(rectangle(-14, -4, 14, 3.2), scene["wall"], pattern=(scene["wallpaper"], paper))
    strip(pen, 0.78, 1.2, scene["floor"])
    for x in places(rng, 1.1, 0.1):
        _window(pen.at(x, 0), scene)
        _corner(pen.at(x + 0.55, 0), scene)


def _window(pen: Pen, scene: Subject) -> None:
    pen.fill(rectangle(-0.2, 0.1, 0.2, 0.55), scene["window"])
    for bar in ("0 .1, 0 .55", "-.2 .32, .2 .32"):
        pen.line(shape(bar), 1.6)
    curtain = curve(".3 .05, .12 .06, .15 .35, .2 .62, .33 .62")
    for half in (curtain, curtain * (-1, 1)):
        pen.fill(half, scene["curtains"], shade=0.03)


def _corner(pen: Pen, scene: Subject) -> None:
    """A picture above a chest with a lamp on it."""
    pen.fill(rectangle(-0.15, 0.16, 0.13, 0.38), scene["lamp"])
    pen.fill(rectangle(-0.12, 0.19, 0.1, 0.35), scene["picture"])
    pen.fill(rectangle(-0.17, 0.58, 0.17, 0.86), scene["furniture"], shade=0.05)
    pen.line(shape("-.17 .72, .17 .72"), 1.0, scene["furniture"])
    pen.fill(shape("-.07 .46, .07 .46, .11 .55, -.11 .55"), scene["lamp"])


def draw_library(pen: Pen, scene: Subject, rng: Rng) -> None:
    """Shelves full of books."""
    backdrop(pen, scene["wall"])
    strip(pen, 0.85, 1.2, scene["floor"])
    for x in places(rng, 0.8, 0.05):
        case = pen.at(x, 0)
        case.fill(rectangle(-0.33, 0.04, 0.33, 0.86), scene["shelves"])
        for row in range(4):
            shelf = case.at(0, 0.23 + 0.2 * row)
            _books(shelf, scene, rng)
            shelf.line(shape("-.33 0, .33 0"), 1.4, scene["shelves"])


def _books(pen: Pen, scene: Subject, rng: Rng) -> None:
    left = -0.31
    while left < 0.24:
        width, height = float(rng.uniform(0.05, 0.1)), float(rng.uniform(0.1, 0.16))
        part = scene["books " + "abc"[int(rng.integers(3))]]
        pen.fill(rectangle(left, -height, left + width, 0), part, outline=0.7)
        left += width
    if rng.random() < 0.3:
        pen.fill(ellipse(0.1, -0.07, 0.065, 0.065, 16), scene["globe"])


def draw_hall(pen: Pen, scene: Subject, rng: Rng) -> None:
    """A great hall: windows and banners between columns."""
    backdrop(pen, scene["wall"])
    strip(pen, 0.8, 1.2, scene["floor"])
    pen.fill(shape("-.15 .8, .15 .8, .5 1.2, -.5 1.2"), scene["carpet"])
    sign = PATTERNS[str(rng.choice(["star", "heart", "diamond"]))]
    for i, x in enumerate(places(rng, 0.45, 0.0)):
        if i % 2:
            _banner(pen.at(x, 0, 0.16), scene, sign)
        else:
            _arch(pen.at(x, 0), scene["windows"])
        column = pen.at(x + 0.225, 0)
        column.fill(rectangle(-0.05, -0.1, 0.05, 0.8), scene["columns"], shade=0.03)
        column.fill(rectangle(-0.075, 0.76, 0.075, 0.83), scene["columns"])


def _banner(pen: Pen, scene: Subject, sign: Pattern) -> None:
    cloth = shape("-.75 .3, .75 .3, .75 4, 0 3.5, -.75 4")
    pen.fill(cloth, scene["banners"], shade=0.1, pattern=(scene["emblems"], sign))


def _arch(pen: Pen, part: int) -> None:
    round_top = open_curve("-.1 .25, 0 .12, .1 .25")
    pen.fill(np.concatenate([shape("-.1 .62"), round_top, shape(".1 .62")]), part)
    pen.line(shape("0 .13, 0 .62"), 1.4)


def draw_cafe(pen: Pen, scene: Subject, rng: Rng) -> None:
    """A counter under an awning, tiles and jars behind it."""
    backdrop(pen, scene["wall"])
    tiles = pen.at(0, 0.6, 0.25)
    tiles.fill(rectangle(-14, -0.6, 14, 1), scene["tiles"], pattern=(scene["wall"], PATTERNS["checks"]))
    strip(pen, 0.84, 1.2, scene["floor"])
    for i, x in enumerate(np.arange(-SPAN, SPAN, 0.16).tolist()):
        part = scene["awning" if i % 2 else "awning stripes"]
        pen.at(x, 0).fill(shape("0 -.1, .16 -.1, .16 .12, .08 .17, 0 .12"), part, outline=0.8)
    for x in places(rng, 0.9, 0.1):
        _shelf(pen.at(x, 0), scene)
    strip(pen, 0.64, 0.92, scene["counter"], shade=0.03)


def _shelf(pen: Pen, scene: Subject) -> None:
    pen.fill(rectangle(-0.16, 0.22, 0.16, 0.36), scene["sign"])
    pen.line(shape("-.1 .29, .1 .29"), 1.5)
    for x in (0.34, 0.5):
        jar = pen.at(x, 0.4)
        jar.fill(curve("-.05 -.16, .05 -.16, .065 0, -.065 0"), scene["jars"], shade=0.02)
    pen.line(shape(".24 .41, .6 .41"), 2.0)
