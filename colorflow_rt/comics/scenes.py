"""Backgrounds out of doors, and the table of all scenes.

Units: the panel's height is 1, y 0 at its top, x 0 at the scene's middle; drawn for |x| <= SPAN. Where things stand
is drawn by the scene's own seed, so the same place looks the same on every page.
"""

from collections.abc import Callable

import numpy as np

from colorflow_rt.comics.cast import Subject
from colorflow_rt.comics.interiors import draw_cafe, draw_hall, draw_library, draw_room
from colorflow_rt.comics.places import SPAN, Rng, backdrop, places, strip
from colorflow_rt.comics.shapes import Points, curve, ellipse, polygon, rectangle, shape, smooth, star
from colorflow_rt.comics.sheet import Pen


def draw_scene(pen: Pen, scene: Subject) -> None:
    """The background of one panel."""
    _SCENES[scene.kind](pen, scene, np.random.default_rng(scene.seed))


def _hill(rng: Rng, y: float, height: float, points: int) -> Points:
    xs = np.linspace(-SPAN, SPAN, points)
    ridge = smooth(np.stack([xs, y - height * rng.random(points)], 1), closed=False)
    return np.concatenate([ridge, polygon((SPAN, 1.1), (-SPAN, 1.1))])


def _ridge(rng: Rng, y: float, height: float, count: int) -> Points:
    xs = np.linspace(-SPAN, SPAN, 2 * count + 1)
    peaks = np.arange(len(xs)) % 2 == 1
    rise = np.where(peaks, rng.uniform(0.6, 1.0, len(xs)), rng.uniform(0.0, 0.3, len(xs)))
    return np.concatenate([np.stack([xs, y - height * rise], 1), polygon((SPAN, 1.1), (-SPAN, 1.1))])


def _clouds(pen: Pen, rng: Rng, step: float) -> None:
    cloud = curve("-1 0, -.8 -.3, -.3 -.35, 0 -.6, .4 -.35, .9 -.25, 1 0, 0 .1")
    for x in places(rng, step):
        size = float(rng.uniform(0.13, 0.2))
        pen.at(x, float(rng.uniform(0.1, 0.28)), size).fill(cloud, 0, outline=0.7)


def _park(pen: Pen, scene: Subject, rng: Rng) -> None:
    backdrop(pen, scene["sky"])
    pen.fill(ellipse(float(rng.uniform(-0.5, 0.5)), 0.2, 0.12, 0.12), scene["sun"])
    _clouds(pen, rng, 1.1)
    pen.fill(_hill(rng, 0.6, 0.2, 9), scene["hills"])
    pen.fill(_hill(rng, 0.72, 0.05, 7), scene["grass"])
    pen.fill(curve("-.1 .7, .05 .7, .5 .9, .9 1.3, -.9 1.3, -.1 .88"), scene["path"])
    for x in places(rng, 0.75):
        tree = pen.at(x, float(rng.uniform(0.74, 0.84)), float(rng.uniform(0.8, 1.2)))
        tree.fill(shape("-.035 0, -.025 -.3, .025 -.3, .035 0"), scene["trunks"])
        tree.fill(_CROWNS[int(rng.integers(2))], scene["leaves"], shade=0.06)


_CROWNS = (
    curve("-.2 -.3, -.22 -.42, -.12 -.52, 0 -.58, .13 -.52, .22 -.42, .19 -.29, 0 -.24"),
    curve("-.14 -.25, -.15 -.45, 0 -.72, .15 -.45, .14 -.25, 0 -.2"),
)


def _street(pen: Pen, scene: Subject, rng: Rng) -> None:
    backdrop(pen, scene["sky"])
    for x in places(rng, 0.5):
        height = float(rng.uniform(0.5, 0.7))
        pen.fill(rectangle(x - 0.17, 0.8 - height, x + 0.17, 0.8), scene["towers"], shade=0.04)
        _windows(pen, scene["windows"], (x - 0.1, x, x + 0.1), 0.8 - height)
    for x in places(rng, 0.72, 0.1):
        _house(pen, x, float(rng.uniform(0.3, 0.42)), scene)
    strip(pen, 0.8, 1.2, scene["road"])
    for x in np.arange(-SPAN, SPAN, 0.35).tolist():
        pen.at(x, 0.9).fill(shape("0 0, .18 0, .16 .025, -.02 .025"), 0, outline=0)


def _house(pen: Pen, x: float, height: float, scene: Subject) -> None:
    top = 0.8 - height
    pen.fill(rectangle(x - 0.24, top, x + 0.24, 0.8), scene["houses"], shade=0.04)
    pen.at(x, top).fill(shape("-.28 0, 0 -.16, .28 0"), scene["roofs"])
    pen.fill(rectangle(x - 0.05, 0.62, x + 0.05, 0.8), scene["doors"])
    _windows(pen, scene["windows"], (x - 0.144, x + 0.144), top)


def _windows(pen: Pen, part: int, columns: tuple[float, ...], top: float) -> None:
    for row in np.arange(top + 0.05, 0.66, 0.13).tolist():
        for x in columns:
            pen.fill(rectangle(x - 0.035, row, x + 0.035, row + 0.075), part, outline=0.7)


def _beach(pen: Pen, scene: Subject, rng: Rng) -> None:
    backdrop(pen, scene["sky"])
    pen.fill(ellipse(float(rng.uniform(-0.6, 0.6)), 0.3, 0.16, 0.16), scene["sun"])
    _clouds(pen, rng, 1.3)
    strip(pen, 0.48, 1.2, scene["sea"])
    for x in places(rng, 0.3):
        wave = pen.at(x, float(rng.uniform(0.52, 0.64)))
        wave.line(shape("0 0, .05 -.008, .1 0"), 0.8, scene["sea"])
    pen.fill(_hill(rng, 0.74, 0.06, 7), scene["sand"])
    for x in places(rng, 1.2, 0.2):
        _parasol(pen.at(x, 0.85), scene)
        _palm(pen.at(x + 0.6, 0.8, float(rng.uniform(0.9, 1.2))), scene["palm"])


def _parasol(pen: Pen, scene: Subject) -> None:
    pen.line(shape("0 0, 0 -.4"), 2.0)
    roof = curve("-.26 -.32, -.15 -.46, 0 -.5, .15 -.46, .26 -.32, 0 -.34")
    pen.fill(roof, scene["parasol"], shade=0.03)
    pen.fill(curve("-.09 -.335, -.05 -.45, 0 -.5, .05 -.45, .09 -.335"), scene["parasol stripes"])


def _palm(pen: Pen, part: int) -> None:
    pen.fill(curve("-.03 0, -.01 -.25, .03 -.5, .06 -.5, .03 -.25, .03 0"), part)
    for turn in np.radians([-170, -130, -90, -50, -10]).tolist():
        leaf = pen.at(0.04, -0.5, 0.26, angle=turn)
        leaf.fill(curve("0 .1, .5 -.22, 1 .12, .5 .08"), part)


def _mountains(pen: Pen, scene: Subject, rng: Rng) -> None:
    backdrop(pen, scene["sky"])
    pen.fill(ellipse(float(rng.uniform(-0.6, 0.6)), 0.22, 0.14, 0.14), scene["moon"])
    for x in places(rng, 0.35):
        pen.fill(star(x, float(rng.uniform(0.04, 0.4)), 0.022, 0.008, 4), 0, outline=0)
    pen.fill(_ridge(rng, 0.62, 0.38, 5), scene["far mountains"], shade=0.04)
    pen.fill(_ridge(rng, 0.72, 0.25, 7), scene["near mountains"])
    pen.fill(_hill(rng, 0.78, 0.04, 7), scene["ground"])
    pen.fill(ellipse(float(rng.uniform(-0.3, 0.3)), 0.93, 0.5, 0.08), scene["lake"])
    pine = shape("-.11 0, -.05 -.12, -.08 -.12, 0 -.36, .08 -.12, .05 -.12, .11 0")
    for x in places(rng, 0.4):
        place = pen.at(x, float(rng.uniform(0.78, 0.88)), float(rng.uniform(0.8, 1.3)))
        place.fill(pine, scene["pines"], shade=0.02)


_SCENES: dict[str, Callable[[Pen, Subject, Rng], None]] = {
    "park": _park,
    "street": _street,
    "beach": _beach,
    "mountains": _mountains,
    "room": draw_room,
    "library": draw_library,
    "hall": draw_hall,
    "cafe": draw_cafe,
}
