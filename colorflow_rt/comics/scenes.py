"""Backgrounds. Units: the panel's height is 1, y 0 at its top, x 0 at the scene's middle; drawn for |x| <= SPAN.

Where things stand is drawn by the scene's own seed, so the same place looks the same on every page.
"""

from collections.abc import Callable

import numpy as np

from colorflow_rt.comics.cast import Subject
from colorflow_rt.comics.patterns import PATTERNS
from colorflow_rt.comics.shapes import Points, curve, ellipse, polygon, rectangle, shape, smooth, star
from colorflow_rt.comics.sheet import Pattern, Pen

SPAN = 2.4
Rng = np.random.Generator


def draw_scene(pen: Pen, scene: Subject) -> None:
    """The background of one panel."""
    _SCENES[scene.looks["kind"]](pen, scene, np.random.default_rng(scene.seed))


def _hill(rng: Rng, y: float, height: float, points: int) -> Points:
    xs = np.linspace(-SPAN, SPAN, points).tolist()
    ridge = smooth([(x, y - height * float(rng.random())) for x in xs], closed=False)
    return np.concatenate([ridge, polygon((SPAN, 1.1), (-SPAN, 1.1))])


def _ridge(rng: Rng, y: float, height: float, count: int) -> Points:
    xs = np.linspace(-SPAN, SPAN, 2 * count + 1).tolist()
    top = [
        (x, y - height * float(rng.uniform(0.6, 1)) if i % 2 else y - height * float(rng.uniform(0, 0.3)))
        for i, x in enumerate(xs)
    ]
    return polygon(*top, (SPAN, 1.1), (-SPAN, 1.1))


def _places(rng: Rng, step: float, jitter: float = 0.3) -> list[float]:
    """Positions along the scene, about `step` apart."""
    return [float(x + rng.uniform(-jitter, jitter) * step) for x in np.arange(-SPAN, SPAN, step)]


def _sky(pen: Pen, part: int) -> None:
    pen.fill(rectangle(-SPAN - 1, -1, SPAN + 1, 1.2), part, outline=0)


def _cloud(pen: Pen, x: float, y: float, size: float) -> None:
    pen.fill(
        smooth(
            [
                (x - size, y),
                (x - size * 0.8, y - size * 0.3),
                (x - size * 0.3, y - size * 0.35),
                (x, y - size * 0.6),
                (x + size * 0.4, y - size * 0.35),
                (x + size * 0.9, y - size * 0.25),
                (x + size, y),
                (x, y + 0.02),
            ]
        ),
        0,
        outline=0.7,
    )


def _park(pen: Pen, scene: Subject, rng: Rng) -> None:
    _sky(pen, scene["sky"])
    pen.fill(ellipse(float(rng.uniform(-0.5, 0.5)), 0.2, 0.12, 0.12), scene["sun"])
    for x in _places(rng, 1.1):
        _cloud(pen, x, float(rng.uniform(0.1, 0.3)), float(rng.uniform(0.13, 0.2)))
    pen.fill(_hill(rng, 0.6, 0.2, 9), scene["hills"])
    pen.fill(_hill(rng, 0.72, 0.05, 7), scene["grass"])
    pen.fill(curve("-0.1 0.7, 0.05 0.7, 0.5 0.9, 0.9 1.3, -0.9 1.3, -0.1 0.88"), scene["path"])
    for x in _places(rng, 0.75):
        _tree(
            pen,
            x,
            float(rng.uniform(0.74, 0.84)),
            float(rng.uniform(0.8, 1.2)),
            scene,
            bool(rng.random() < 0.5),
        )


def _tree(pen: Pen, x: float, y: float, size: float, scene: Subject, tall: bool) -> None:
    tree = pen.at(x, y, size)
    tree.fill(shape("-0.035 0, -0.025 -0.3, 0.025 -0.3, 0.035 0"), scene["trunks"])
    crown = [
        (-0.2, -0.3),
        (-0.22, -0.42),
        (-0.12, -0.52),
        (0, -0.58),
        (0.13, -0.52),
        (0.22, -0.42),
        (0.19, -0.29),
        (0, -0.24),
    ]
    tall_crown = [(-0.14, -0.25), (-0.15, -0.45), (0, -0.72), (0.15, -0.45), (0.14, -0.25), (0, -0.2)]
    tree.fill(smooth(tall_crown if tall else crown), scene["leaves"], shade=0.06)


def _street(pen: Pen, scene: Subject, rng: Rng) -> None:
    _sky(pen, scene["sky"])
    for x in _places(rng, 0.5):
        _house(pen, x, 0.8, 0.17, float(rng.uniform(0.5, 0.7)), scene, "towers")
    for x in _places(rng, 0.72, 0.1):
        _house(pen, x, 0.8, 0.24, float(rng.uniform(0.3, 0.42)), scene, "houses")
    pen.fill(rectangle(-SPAN, 0.8, SPAN, 1.2), scene["road"])
    for x in np.arange(-SPAN, SPAN, 0.35).tolist():
        pen.fill(polygon((x, 0.9), (x + 0.18, 0.9), (x + 0.16, 0.925), (x - 0.02, 0.925)), 0, outline=0)


def _house(pen: Pen, x: float, y: float, half: float, height: float, scene: Subject, part: str) -> None:
    pen.fill(rectangle(x - half, y - height, x + half, y), scene[part], shade=0.04)
    if part == "houses":
        pen.fill(
            polygon((x - half * 1.15, y - height), (x, y - height - 0.16), (x + half * 1.15, y - height)),
            scene["roofs"],
        )
        pen.fill(rectangle(x - 0.05, y - 0.18, x + 0.05, y), scene["doors"])
    columns = (-0.6, 0.6) if part == "houses" else (-0.55, 0.0, 0.55)
    for row in range(int((height - 0.08) / 0.13)):
        for c in columns:
            top = y - height + 0.05 + 0.13 * row
            pen.fill(
                rectangle(x + c * half - 0.035, top, x + c * half + 0.035, top + 0.075),
                scene["windows"],
                outline=0.7,
            )


def _beach(pen: Pen, scene: Subject, rng: Rng) -> None:
    _sky(pen, scene["sky"])
    pen.fill(ellipse(float(rng.uniform(-0.6, 0.6)), 0.3, 0.16, 0.16), scene["sun"])
    for x in _places(rng, 1.3):
        _cloud(pen, x, float(rng.uniform(0.1, 0.25)), 0.15)
    pen.fill(rectangle(-SPAN, 0.48, SPAN, 1.2), scene["sea"])
    for x in _places(rng, 0.3):
        y = float(rng.uniform(0.52, 0.64))
        pen.line(polygon((x, y), (x + 0.05, y - 0.008), (x + 0.1, y)), 0.8, scene["sea"])
    pen.fill(_hill(rng, 0.74, 0.06, 7), scene["sand"])
    for x in _places(rng, 1.2, 0.2):
        _parasol(pen.at(x, 0.85), scene)
        _palm(pen.at(x + 0.6, 0.8, float(rng.uniform(0.9, 1.2))), scene)


def _parasol(pen: Pen, scene: Subject) -> None:
    pen.line(shape("0 0, 0 -0.4"), 2.0)
    pen.fill(
        curve("-0.26 -0.32, -0.15 -0.46, 0 -0.5, 0.15 -0.46, 0.26 -0.32, 0 -0.34"),
        scene["parasol"],
        shade=0.03,
    )
    pen.fill(
        curve("-0.09 -0.335, -0.05 -0.45, 0 -0.5, 0.05 -0.45, 0.09 -0.335"),
        scene["parasol stripes"],
    )


def _palm(pen: Pen, scene: Subject) -> None:
    pen.fill(
        curve("-0.03 0, -0.01 -0.25, 0.03 -0.5, 0.06 -0.5, 0.03 -0.25, 0.03 0"),
        scene["palm"],
    )
    for turn in (-170, -130, -90, -50, -10):
        x, y = float(np.cos(np.radians(turn))), float(np.sin(np.radians(turn)))
        pen.fill(
            smooth(
                [
                    (0.04, -0.5),
                    (0.04 + 0.12 * x, -0.53 + 0.12 * y),
                    (0.04 + 0.24 * x, -0.46 + 0.1 * y),
                    (0.04 + 0.12 * x, -0.47 + 0.1 * y),
                ]
            ),
            scene["palm"],
        )


def _room(pen: Pen, scene: Subject, rng: Rng) -> None:
    paper = str(rng.choice(["pinstripes", "dots", "stripes"]))
    pen.at(0, 0, 0.25).fill(
        rectangle(-7, -4, 7, 3.2), scene["wall"], pattern=(scene["wallpaper"], PATTERNS[paper])
    )
    pen.fill(rectangle(-SPAN, 0.78, SPAN, 1.2), scene["floor"])
    for x in _places(rng, 1.1, 0.1):
        _window(pen, x, scene)
        pen.fill(rectangle(x + 0.4, 0.16, x + 0.68, 0.38), scene["lamp"])
        pen.fill(rectangle(x + 0.43, 0.19, x + 0.65, 0.35), scene["picture"])
        pen.fill(rectangle(x + 0.38, 0.58, x + 0.72, 0.86), scene["furniture"], shade=0.05)
        pen.line(polygon((x + 0.38, 0.72), (x + 0.72, 0.72)), 1.0, scene["furniture"])
        pen.fill(
            polygon((x + 0.48, 0.46), (x + 0.62, 0.46), (x + 0.66, 0.55), (x + 0.44, 0.55)), scene["lamp"]
        )


def _window(pen: Pen, x: float, scene: Subject) -> None:
    pen.fill(rectangle(x - 0.2, 0.1, x + 0.2, 0.55), scene["window"])
    pen.line(polygon((x, 0.1), (x, 0.55)), 1.6)
    pen.line(polygon((x - 0.2, 0.32), (x + 0.2, 0.32)), 1.6)
    for side in (-1, 1):
        pen.fill(
            smooth(
                [
                    (x + side * 0.3, 0.05),
                    (x + side * 0.12, 0.06),
                    (x + side * 0.15, 0.35),
                    (x + side * 0.2, 0.62),
                    (x + side * 0.33, 0.62),
                ]
            ),
            scene["curtains"],
            shade=0.03,
        )


def _library(pen: Pen, scene: Subject, rng: Rng) -> None:
    _sky(pen, scene["wall"])
    pen.fill(rectangle(-SPAN, 0.85, SPAN, 1.2), scene["floor"])
    for x in _places(rng, 0.8, 0.05):
        pen.fill(rectangle(x - 0.33, 0.04, x + 0.33, 0.86), scene["shelves"])
        for row in range(4):
            y = 0.23 + 0.2 * row
            _books(pen, x, y, scene, rng)
            pen.line(polygon((x - 0.33, y), (x + 0.33, y)), 1.4, scene["shelves"])


def _books(pen: Pen, x: float, y: float, scene: Subject, rng: Rng) -> None:
    left = x - 0.31
    while left < x + 0.24:
        width, height = float(rng.uniform(0.05, 0.1)), float(rng.uniform(0.1, 0.16))
        pen.fill(
            rectangle(left, y - height, left + width, y),
            scene["books " + "abc"[int(rng.integers(3))]],
            outline=0.7,
        )
        left += width
    if rng.random() < 0.3:
        pen.fill(ellipse(x + 0.1, y - 0.07, 0.065, 0.065, 16), scene["globe"])


def _mountains(pen: Pen, scene: Subject, rng: Rng) -> None:
    _sky(pen, scene["sky"])
    pen.fill(ellipse(float(rng.uniform(-0.6, 0.6)), 0.22, 0.14, 0.14), scene["moon"])
    for x in _places(rng, 0.35):
        pen.fill(star(x, float(rng.uniform(0.04, 0.4)), 0.022, 0.008, 4), 0, outline=0)
    pen.fill(_ridge(rng, 0.62, 0.38, 5), scene["far mountains"], shade=0.04)
    pen.fill(_ridge(rng, 0.72, 0.25, 7), scene["near mountains"])
    pen.fill(_hill(rng, 0.78, 0.04, 7), scene["ground"])
    pen.fill(ellipse(float(rng.uniform(-0.3, 0.3)), 0.93, 0.5, 0.08), scene["lake"])
    for x in _places(rng, 0.4):
        pine = pen.at(x, float(rng.uniform(0.78, 0.88)), float(rng.uniform(0.8, 1.3)))
        pine.fill(
            shape("-0.11 0, -0.05 -0.12, -0.08 -0.12, 0 -0.36, 0.08 -0.12, 0.05 -0.12, 0.11 0"),
            scene["pines"],
            shade=0.02,
        )


def _hall(pen: Pen, scene: Subject, rng: Rng) -> None:
    _sky(pen, scene["wall"])
    pen.fill(rectangle(-SPAN, 0.8, SPAN, 1.2), scene["floor"])
    pen.fill(shape("-0.15 0.8, 0.15 0.8, 0.5 1.2, -0.5 1.2"), scene["carpet"])
    kind = str(rng.choice(["star", "heart", "diamond"]))
    for i, x in enumerate(_places(rng, 0.45, 0.0)):
        if i % 2:
            _banner(pen, x, scene, PATTERNS[kind])
        else:
            pen.fill(
                np.concatenate(
                    [
                        polygon((x - 0.1, 0.62), (x - 0.1, 0.25)),
                        smooth([(x - 0.1, 0.25), (x, 0.12), (x + 0.1, 0.25)], closed=False),
                        polygon((x + 0.1, 0.62)),
                    ]
                ),
                scene["windows"],
            )
            pen.line(polygon((x, 0.13), (x, 0.62)), 1.4)
        edge = x + 0.225
        pen.fill(rectangle(edge - 0.05, -0.1, edge + 0.05, 0.8), scene["columns"], shade=0.03)
        pen.fill(rectangle(edge - 0.075, 0.76, edge + 0.075, 0.83), scene["columns"])


def _banner(pen: Pen, x: float, scene: Subject, sign: Pattern) -> None:
    pen.at(x, 0, 0.16).fill(
        shape("-0.75 0.3, 0.75 0.3, 0.75 4, 0 3.5, -0.75 4"),
        scene["banners"],
        shade=0.1,
        pattern=(scene["emblems"], sign),
    )


def _cafe(pen: Pen, scene: Subject, rng: Rng) -> None:
    _sky(pen, scene["wall"])
    pen.at(0, 0.6, 0.25).fill(
        rectangle(-10, -0.6, 10, 1), scene["tiles"], pattern=(scene["wall"], PATTERNS["checks"])
    )
    pen.fill(rectangle(-SPAN, 0.84, SPAN, 1.2), scene["floor"])
    for x in np.arange(-SPAN, SPAN, 0.16).tolist():
        part = "awning" if round(x / 0.16) % 2 else "awning stripes"
        pen.fill(
            polygon((x, -0.1), (x + 0.16, -0.1), (x + 0.16, 0.12), (x + 0.08, 0.17), (x, 0.12)),
            scene[part],
            outline=0.8,
        )
    for x in _places(rng, 0.9, 0.1):
        pen.fill(rectangle(x - 0.16, 0.22, x + 0.16, 0.36), scene["sign"])
        pen.line(polygon((x - 0.1, 0.29), (x + 0.1, 0.29)), 1.5)
        for jar in (0.34, 0.5):
            pen.fill(
                smooth(
                    [
                        (x + jar - 0.05, 0.24),
                        (x + jar + 0.05, 0.24),
                        (x + jar + 0.065, 0.4),
                        (x + jar - 0.065, 0.4),
                    ]
                ),
                scene["jars"],
                shade=0.02,
            )
        pen.line(polygon((x + 0.24, 0.41), (x + 0.6, 0.41)), 2.0)
    pen.fill(rectangle(-SPAN, 0.64, SPAN, 0.92), scene["counter"], shade=0.03)


_SCENES: dict[str, Callable[[Pen, Subject, Rng], None]] = {
    "park": _park,
    "street": _street,
    "beach": _beach,
    "room": _room,
    "library": _library,
    "mountains": _mountains,
    "hall": _hall,
    "cafe": _cafe,
}
