"""Things that characters hold: each has a main colour and a trim. Units: those of the figure, origin in the hand."""

from colorflow_rt.comics.cast import Subject
from colorflow_rt.comics.patterns import PATTERNS
from colorflow_rt.comics.shapes import curve, ellipse, limb, open_curve, shape, star
from colorflow_rt.comics.sheet import Pen


def draw_prop(pen: Pen, prop: Subject) -> None:
    """Draws the prop upright in the hand."""
    _PROPS[prop.kind](pen, prop["main"], prop["trim"])


def _ball(pen: Pen, main: int, trim: int) -> None:
    pen.fill(ellipse(0, -0.5, 0.75, 0.75), main, shade=0.2, pattern=(trim, PATTERNS["stripes"]))


def _book(pen: Pen, main: int, trim: int) -> None:
    pen.fill(shape("-0.6 -1.1, 0.6 -1.1, 0.6 0.4, -0.6 0.4"), main, shade=0.1)
    pen.fill(shape("-0.6 -1.1, -0.4 -1.1, -0.4 0.4, -0.6 0.4"), trim)
    pen.fill(shape("-0.2 -0.8, 0.4 -0.8, 0.4 -0.45, -0.2 -0.45"), trim)


def _cup(pen: Pen, main: int, trim: int) -> None:
    pen.fill(ellipse(0.45, -0.4, 0.3, 0.3, 16), 0)
    pen.fill(shape("-0.5 -1, 0.5 -1, 0.4 0.2, -0.4 0.2"), main, shade=0.12)
    pen.fill(shape("-0.46 -0.6, 0.46 -0.6, 0.44 -0.25, -0.44 -0.25"), trim)


def _balloon(pen: Pen, main: int, trim: int) -> None:
    pen.line(open_curve("0 0.3, 0.1 -0.6, 0 -1.5"))
    pen.fill(
        curve("0 -3.3, 0.75 -2.95, 0.8 -2.2, 0 -1.4, -0.8 -2.2, -0.75 -2.95"),
        main,
        shade=0.25,
    )
    pen.fill(star(0, -2.4, 0.4, 0.17, 5), trim, outline=0.6)


def _flower(pen: Pen, main: int, trim: int) -> None:
    pen.line(shape("0 0.4, 0 -0.7"), 2.2)
    for x, y in ((0, -1.5), (0.5, -1.12), (0.3, -0.55), (-0.3, -0.55), (-0.5, -1.12)):
        pen.fill(ellipse(x, y, 0.36, 0.36, 14), main)
    pen.fill(ellipse(0, -1.0, 0.32, 0.32, 14), trim)


def _wand(pen: Pen, main: int, trim: int) -> None:
    pen.fill(limb(0, 0.6, 0, -1.0, 0.1, 0.1), trim)
    pen.fill(star(0, -1.4, 0.7, 0.3, 5), main, shade=0.1)


_PROPS = {"ball": _ball, "book": _book, "cup": _cup, "balloon": _balloon, "flower": _flower, "wand": _wand}
