"""Heads and their features. Units: the head's radius is 1, its centre (0, 0), y down."""

from colorflow_rt.comics.cast import Subject
from colorflow_rt.comics.hair import draw_fringe
from colorflow_rt.comics.headwear import draw_glasses, draw_headwear
from colorflow_rt.comics.shapes import Points, arc, ellipse, mirrored, open_curve, polygon, smooth
from colorflow_rt.comics.sheet import Pen

MOODS = ("calm", "smile", "laugh", "shout", "sad", "angry", "wink")
BROWS = {"angry": 0.13, "sad": -0.13, "shout": 0.06}  # how far the inner end is lowered
MOUTHS = {"smile": 0.1, "wink": 0.12, "sad": -0.08, "angry": -0.05}  # how far the middle is lowered


def draw_head(pen: Pen, who: Subject, mood: str, turn: float) -> None:
    """Face, features, fringe and head-wear; `turn` (-1 to 1) moves the features sideways."""
    skin = who["skin"]
    for side in (-1, 1):
        pen.fill(ellipse(side * 0.96 - turn * 0.1, 0.2, 0.2, 0.27, 14), skin)
    pen.fill(_face(who.build["jaw"], turn), skin, shade=0.16)
    face = pen.at(turn * 0.3, 0)
    _draw_eyes(face, who, mood)
    _draw_mouth(face, mood, skin)
    face.line(open_curve(".02 .38, .08 .5, 0 .53"), 0.8, skin)
    if who.looks["accessory"] == "glasses":
        draw_glasses(face, who)
    draw_fringe(pen, who, turn)
    draw_headwear(pen, who)


def _face(jaw: float, turn: float) -> Points:
    t, cheek, chin = turn * 0.12, 0.72 * jaw + 0.08, 0.36 * jaw
    upper = [(0.6, -0.85), (0.95, -0.3), (0.93, 0.3)]
    left = [(-x, y) for x, y in reversed(upper)]
    lower = [(cheek, 0.72), (chin + t, 1.02), (t, 1.1), (t - chin, 1.02), (-cheek, 0.72)]
    return smooth([(0, -1.0), *upper, *lower, *left])


def _draw_eyes(face: Pen, who: Subject, mood: str) -> None:
    for side in (-1, 1):
        eye = face.at(side * 0.42, 0.16, mirror=side < 0)
        if mood == "laugh" or (mood == "wink" and side > 0):
            eye.line(arc(0, 0.08, 0.24, 0.2, 190, 350), 1.8, who["skin"])
        else:
            _open_eye(eye, who)
        tilt = BROWS.get(mood, 0.0)
        brow = smooth(polygon((-0.26, tilt - 0.36), (0, -0.42), (0.28, -0.34 - tilt)), closed=False, steps=3)
        eye.line(brow, 1.6, who["skin"])


def _open_eye(eye: Pen, who: Subject) -> None:
    kind, size, iris = who.looks["eyes"], who.build["eye"], who["eyes"]
    if kind == "dot":
        eye.fill(ellipse(0, 0.05, 0.17 * size, 0.22 * size, 16), iris)
        eye.black(ellipse(0, 0.08, 0.08, 0.11, 10), iris)
        return
    ry = {"round": 0.29, "tall": 0.36, "sleepy": 0.22}[kind] * size
    eye.fill(ellipse(0, 0.05, 0.26 * size, ry, 18), 0, outline=0.7)
    eye.fill(ellipse(-0.02, 0.06, 0.19 * size, ry * 0.92, 16), iris, outline=0.8)
    eye.black(ellipse(-0.02, 0.08, 0.09 * size, ry * 0.5, 12), iris)
    eye.fill(ellipse(-0.08, -0.06, 0.065, 0.08, 8), 0, outline=0)
    lash = polygon((-0.28, -ry * 0.5), (0, 0.05 - ry), (0.26, -ry * 0.55), (0.36, -ry * 0.3))
    eye.line(smooth(lash, closed=False, steps=3), 2.0, who["skin"])


def _draw_mouth(face: Pen, mood: str, skin: int) -> None:
    if mood == "laugh":
        face.black(mirrored("0 .66, .24 .64, .14 .9, 0 .95"), skin)
    elif mood == "shout":
        face.black(ellipse(0, 0.78, 0.14, 0.19, 14), skin)
    else:
        bend = MOUTHS.get(mood, 0.02)
        lips = polygon((-0.2, 0.74 - bend / 2), (0, 0.74 + bend), (0.2, 0.74 - bend / 2))
        face.line(smooth(lips, closed=False, steps=3), 1.2, skin)
