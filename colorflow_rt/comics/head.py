"""Heads: hair behind, face, features, fringe, and what is worn on the head. Units: the head's radius is 1."""

import numpy as np

from colorflow_rt.comics.cast import Subject
from colorflow_rt.comics.sheet import (
    Pen,
    Points,
    arc,
    ellipse,
    limb,
    polygon,
    smooth,
    star,
    symmetric,
)

MOODS = ("calm", "smile", "laugh", "shout", "sad", "angry", "wink")


def hair_behind(pen: Pen, who: Subject) -> None:
    """The part of the hair that hangs behind head and body."""
    style, hair = who.looks["hair"], who["hair"]
    for shape in _BEHIND.get(style, _BEHIND["short"]):
        pen.fill(shape, hair, shade=0.22)


def draw_head(pen: Pen, who: Subject, mood: str, turn: float, *, closed_eyes: bool = False) -> None:
    """Face, features, fringe and head-wear; `turn` (-1 to 1) moves the features sideways."""
    skin = who["skin"]
    for side in (-1, 1):
        pen.fill(ellipse(side * 0.96 - turn * 0.1, 0.2, 0.2, 0.27, 14), skin)
    pen.fill(_face(who.build["jaw"], turn), skin, shade=0.16)
    face = pen.at(turn * 0.3, 0)
    _draw_eyes(face, who, mood, closed_eyes)
    _draw_mouth(face, who, mood)
    face.line(smooth([(0.02, 0.38), (0.08, 0.5), (0.0, 0.53)], closed=False), 0.8, skin)
    if who.looks["accessory"] == "glasses":
        _glasses(face, who)
    _draw_fringe(pen, who, turn)
    _draw_headwear(pen, who)


def hair_in_front(pen: Pen, who: Subject) -> None:
    """Braids that fall over the shoulders."""
    if who.looks["hair"] != "braids":
        return
    for side in (-1, 1):
        for i in range(4):
            pen.fill(
                ellipse(side * (1.02 + 0.06 * i), 0.75 + 0.42 * i, 0.3 - 0.02 * i, 0.27, 14),
                who["hair"],
                shade=0.12,
            )
        pen.fill(star(side * 1.28, 2.5, 0.3, 0.16, 4), who["accessory"])


def _face(jaw: float, turn: float) -> Points:
    t = turn * 0.12
    right = [(0.6, -0.85), (0.95, -0.3), (0.93, 0.3), (0.72 * jaw + 0.08, 0.72), (0.36 * jaw + t, 1.02)]
    left = [(-x + (2 * t if i == 4 else 0), y) for i, (x, y) in enumerate(right)]
    return smooth([(0, -1.0), *right, (t, 1.1), *left[::-1]])


def _draw_eyes(face: Pen, who: Subject, mood: str, closed: bool) -> None:
    for side in (-1, 1):
        eye = face.at(side * 0.42, 0.16, mirror=side < 0)
        if closed or mood == "laugh" or (mood == "wink" and side > 0):
            eye.line(arc(0, 0.08, 0.24, 0.2, 190, 350), 1.8, who["skin"])
        else:
            _open_eye(eye, who)
        _brow(eye, who, mood)


def _open_eye(eye: Pen, who: Subject) -> None:
    kind, size = who.looks["eyes"], who.build["eye"]
    if kind == "dot":
        eye.fill(ellipse(0, 0.05, 0.17 * size, 0.22 * size, 16), who["eyes"])
        eye.black(ellipse(0, 0.08, 0.08, 0.11, 10), who["eyes"])
        return
    ry = {"round": 0.29, "tall": 0.36, "sleepy": 0.22}[kind] * size
    eye.fill(ellipse(0, 0.05, 0.26 * size, ry, 18), 0, outline=0.7)
    eye.fill(ellipse(-0.02, 0.06, 0.19 * size, ry * 0.92, 16), who["eyes"], outline=0.8)
    eye.black(ellipse(-0.02, 0.08, 0.09 * size, ry * 0.5, 12), who["eyes"])
    eye.fill(ellipse(-0.08, -0.06, 0.065, 0.08, 8), 0, outline=0)
    eye.line(
        smooth(
            [(-0.28, -ry * 0.5), (0, 0.05 - ry), (0.26, -ry * 0.55), (0.36, -ry * 0.3)], closed=False, steps=3
        ),
        2.0,
        who["skin"],
    )


def _brow(eye: Pen, who: Subject, mood: str) -> None:
    tilt = {"angry": 0.13, "sad": -0.13, "shout": 0.06}.get(mood, 0.0)
    eye.line(
        smooth([(-0.26, -0.36 + tilt), (0, -0.42), (0.28, -0.34 - tilt)], closed=False, steps=3),
        1.6,
        who["skin"],
    )


def _draw_mouth(face: Pen, who: Subject, mood: str) -> None:
    skin = who["skin"]
    if mood in ("laugh", "shout"):
        shape = (
            symmetric((0, 0.66), (0.24, 0.64), (0.14, 0.9), (0, 0.95))
            if mood == "laugh"
            else ellipse(0, 0.78, 0.14, 0.19, 14)
        )
        face.black(shape, skin)
        return
    bend = {"smile": 0.1, "wink": 0.12, "sad": -0.08, "angry": -0.05}.get(mood, 0.02)
    face.line(
        smooth([(-0.2, 0.74 - bend / 2), (0, 0.74 + bend), (0.2, 0.74 - bend / 2)], closed=False, steps=3),
        1.2,
        skin,
    )


def _glasses(face: Pen, who: Subject) -> None:
    for side in (-1, 1):
        rim = ellipse(side * 0.43, 0.18, 0.37, 0.36, 22)
        closed = np.concatenate([rim, rim[:1]])
        face.line(closed, 5.0)
        face.band(closed, 0.07, who["accessory"])
    face.line(polygon((-0.08, 0.14), (0.08, 0.14)), 2.0)


def _draw_fringe(pen: Pen, who: Subject, turn: float) -> None:
    style = who.looks["hair"]
    if style == "mohawk":
        pen.fill(
            smooth(
                [
                    (-0.35, -0.45),
                    (-0.5, -1.1),
                    (-0.55, -1.75),
                    (-0.2, -1.5),
                    (0, -2.05),
                    (0.2, -1.5),
                    (0.55, -1.75),
                    (0.5, -1.1),
                    (0.35, -0.45),
                    (0, -0.62),
                ]
            ),
            who["hair"],
            shade=0.2,
        )
        return
    crown = [
        (-1.06, -0.2),
        (-1.02, -0.75),
        (-0.62, -1.2),
        (0, -1.34),
        (0.62, -1.2),
        (1.02, -0.75),
        (1.06, -0.2),
    ]
    if style == "spiky":
        crown = [
            (-1.06, -0.2),
            (-1.5, -0.75),
            (-1.05, -0.9),
            (-1.05, -1.5),
            (-0.5, -1.25),
            (-0.15, -1.85),
            (0.2, -1.3),
            (0.75, -1.65),
            (0.8, -1.05),
            (1.45, -0.95),
            (1.06, -0.2),
        ]
    edge = _FRINGES["straight" if style == "bowl" else who.looks["fringe"]]
    top = np.array(crown) if style == "spiky" else smooth(crown, closed=False)
    shift = np.array([turn * 0.12, 0.0])
    pen.fill(np.concatenate([top, np.array(edge) + shift]), who["hair"], shade=0.2)
    pen.line(arc(-0.3, -0.7, 0.45, 0.35, 200, 265, 6), 0.7, who["hair"])


def _draw_headwear(pen: Pen, who: Subject) -> None:
    worn = _HEADWEAR.get(who.looks["accessory"])
    if worn is not None:
        for shape, part, shade in worn:
            pen.fill(shape, who[part] if part else 0, shade=shade)


_FRINGES: dict[str, list[tuple[float, float]]] = {
    "straight": [
        (1.1, 0.35),
        (0.88, 0.3),
        (0.84, -0.22),
        (0.45, -0.3),
        (0.42, -0.2),
        (0.05, -0.3),
        (0, -0.2),
        (-0.4, -0.3),
        (-0.45, -0.2),
        (-0.84, -0.25),
        (-0.88, 0.3),
        (-1.1, 0.35),
    ],
    "zigzag": [
        (1.12, 0.4),
        (0.9, 0.05),
        (0.78, -0.4),
        (0.6, -0.02),
        (0.42, -0.5),
        (0.18, -0.05),
        (0.0, -0.52),
        (-0.25, -0.02),
        (-0.45, -0.5),
        (-0.7, 0.0),
        (-0.8, -0.4),
        (-0.92, 0.05),
        (-1.12, 0.4),
    ],
    "parted": [
        (1.14, 0.5),
        (0.92, 0.35),
        (0.8, -0.15),
        (0.5, -0.5),
        (0.12, -0.85),
        (0.0, -0.92),
        (-0.3, -0.6),
        (-0.72, -0.25),
        (-0.9, 0.35),
        (-1.14, 0.5),
    ],
    "swept": [
        (1.1, 0.3),
        (0.92, 0.0),
        (0.82, -0.45),
        (0.66, -0.72),
        (0.3, -0.5),
        (-0.25, -0.2),
        (-0.72, 0.06),
        (-0.86, 0.1),
        (-0.95, 0.45),
        (-1.14, 0.45),
    ],
    "high": [
        (1.06, 0.2),
        (0.92, 0.1),
        (0.86, -0.4),
        (0.55, -0.72),
        (0, -0.8),
        (-0.55, -0.72),
        (-0.86, -0.4),
        (-0.92, 0.1),
        (-1.06, 0.2),
    ],
}

_SHORT = symmetric((0, -1.3), (0.75, -1.12), (1.14, -0.4), (1.12, 0.35), (0.75, 0.75), (0, 0.8))
_TAIL = smooth(
    [(0.95, -0.55), (1.5, -0.75), (2.0, -0.1), (2.05, 1.0), (1.75, 2.1), (1.55, 1.9), (1.4, 1.0), (1.15, 0.2)]
)
_BEHIND: dict[str, list[Points]] = {
    "short": [_SHORT],
    "bowl": [symmetric((0, -1.35), (0.85, -1.1), (1.22, -0.3), (1.2, 0.35), (0.8, 0.5), (0, 0.5))],
    "bob": [
        symmetric((0, -1.32), (0.8, -1.15), (1.2, -0.4), (1.36, 0.5), (1.4, 1.12), (0.9, 1.22), (0, 1.1))
    ],
    "long": [
        symmetric(
            (0, -1.34), (0.8, -1.15), (1.2, -0.4), (1.35, 0.8), (1.5, 2.2), (1.55, 3.1), (0.9, 3.3), (0, 3.1)
        )
    ],
    "twintails": [_SHORT, _TAIL, _TAIL * (-1, 1)],
    "ponytail": [
        smooth(
            [
                (0.2, -1.1),
                (0.9, -1.6),
                (1.8, -1.2),
                (2.2, 0.1),
                (1.9, 1.7),
                (1.6, 2.0),
                (1.5, 0.9),
                (1.2, 0.0),
                (0.6, -0.6),
            ]
        ),
        _SHORT,
    ],
    "bun": [ellipse(0.1, -1.55, 0.55, 0.5), _SHORT],
    "buns": [ellipse(-0.85, -1.2, 0.48, 0.46), ellipse(0.85, -1.2, 0.48, 0.46), _SHORT],
    "afro": [
        smooth(
            [
                (r * np.cos(a), -0.35 + r * np.sin(a))
                for i, a in enumerate(np.linspace(0, 2 * np.pi, 26, endpoint=False))
                for r in [1.72 if i % 2 else 1.55]
            ],
            steps=3,
        )
    ],
    "spiky": [star(0, -0.35, 1.62, 1.12, 9, -70)],
    "mohawk": [],
}

_Worn = list[tuple[Points, str, float]]
_HEADWEAR: dict[str, _Worn] = {
    "cap": [
        (
            smooth(
                [
                    (-1.14, -0.45),
                    (-1.0, -1.1),
                    (-0.4, -1.52),
                    (0.4, -1.52),
                    (1.0, -1.1),
                    (1.14, -0.45),
                    (0, -0.62),
                ]
            ),
            "accessory",
            0.2,
        ),
        (
            smooth([(-0.95, -0.5), (0, -0.72), (0.95, -0.5), (0.75, -0.26), (0, -0.36), (-0.75, -0.26)]),
            "inner",
            0.0,
        ),
    ],
    "beanie": [
        (ellipse(0, -1.72, 0.28, 0.26, 16), "inner", 0.08),
        (
            smooth(
                [
                    (-1.14, -0.5),
                    (-0.95, -1.25),
                    (-0.35, -1.6),
                    (0.35, -1.6),
                    (0.95, -1.25),
                    (1.14, -0.5),
                    (0, -0.7),
                ]
            ),
            "accessory",
            0.2,
        ),
        (limb(-1.05, -0.55, 1.05, -0.55, 0.17, 0.17), "inner", 0.0),
    ],
    "witch hat": [
        (
            smooth(
                [
                    (-1.75, -0.45),
                    (-0.8, -0.8),
                    (0.8, -0.8),
                    (1.75, -0.45),
                    (0.8, -0.42),
                    (0, -0.52),
                    (-0.8, -0.42),
                ]
            ),
            "accessory",
            0.08,
        ),
        (
            smooth(
                [
                    (-0.88, -0.75),
                    (-0.5, -1.5),
                    (0.25, -2.35),
                    (0.75, -2.3),
                    (0.55, -1.9),
                    (0.62, -1.4),
                    (0.88, -0.75),
                    (0, -0.66),
                ]
            ),
            "accessory",
            0.2,
        ),
        (polygon((-0.88, -0.72), (-0.78, -0.98), (0.78, -0.98), (0.88, -0.72)), "inner", 0.0),
    ],
    "bow": [
        (smooth([(0.55, -1.2), (0.05, -1.65), (-0.05, -0.95)]), "accessory", 0.1),
        (smooth([(0.55, -1.2), (1.15, -1.6), (1.2, -0.85)]), "accessory", 0.1),
        (ellipse(0.57, -1.2, 0.15, 0.16, 12), "accessory", 0.0),
    ],
    "headphones": [
        (
            np.concatenate([arc(0, -0.1, 1.2, 1.38, 190, 350, 16), arc(0, -0.1, 1.06, 1.2, 350, 190, 16)]),
            "inner",
            0.0,
        ),
        (ellipse(-1.12, 0.15, 0.27, 0.4, 18), "accessory", 0.1),
        (ellipse(1.12, 0.15, 0.27, 0.4, 18), "accessory", 0.1),
    ],
    "headband": [
        (polygon((1.0, -0.62), (1.75, -0.85), (1.7, -0.5), (1.85, -0.3), (1.0, -0.45)), "accessory", 0.0),
        (
            np.concatenate([arc(0, -0.2, 1.12, 0.5, 200, 340, 12), arc(0, 0.05, 1.1, 0.5, 340, 200, 12)]),
            "accessory",
            0.0,
        ),
    ],
    "crown": [
        (
            polygon(
                (-0.75, -0.95),
                (-0.9, -1.75),
                (-0.42, -1.35),
                (0, -1.9),
                (0.42, -1.35),
                (0.9, -1.75),
                (0.75, -0.95),
            ),
            "accessory",
            0.14,
        ),
        (ellipse(0, -1.2, 0.14, 0.14, 12), "inner", 0.0),
    ],
}
