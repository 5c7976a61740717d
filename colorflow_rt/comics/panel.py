"""One panel: which scene, who stands in it and how, and its drawing."""

from dataclasses import dataclass

import numpy as np

from colorflow_rt.comics.cast import Subject
from colorflow_rt.comics.figure import ARMS, BUST, FEET, TOP, WAIST, Pose, draw_figure
from colorflow_rt.comics.head import MOODS
from colorflow_rt.comics.lettering import SOUNDS, SPEECH, bubble, sound, speed_lines
from colorflow_rt.comics.scenes import draw_scene
from colorflow_rt.comics.sheet import Pen, Sheet

SHOTS = {"bust": BUST, "half": WAIST, "full": FEET}


@dataclass(frozen=True)
class Shot:
    """What a panel shows. `who` stand from left to right; `speech` False leaves out all lettering."""

    scene: Subject
    who: list[Subject]
    view: str
    props: list[Subject]
    seed: int
    speech: bool = True


def draw_panel(sheet: Sheet, shot: Shot) -> None:
    """Draws the panel over the whole sheet."""
    rng = np.random.default_rng(shot.seed)
    w, h = sheet.width, sheet.height
    zoom = float(rng.uniform(1.0, 1.35)) * max(1.0, w / h / 3.2)  # wide panels stay inside the scene's span
    draw_scene(Pen(sheet, w / 2 + float(rng.uniform(-0.5, 0.5)) * h, h * (1 - zoom), h * zoom), shot.scene)
    if shot.speech and rng.random() < 0.14:
        speed_lines(sheet, rng, w / 2, h * 0.45)
    heads = _draw_cast(sheet, shot, rng)
    if shot.speech:
        _letter(sheet, rng, heads)


def _draw_cast(sheet: Sheet, shot: Shot, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Draws everyone; returns their heads as (x, y, radius) in pixels."""
    w, h = sheet.width, sheet.height
    bottom, count = SHOTS[shot.view], len(shot.who)
    head = float(rng.uniform(0.02, 0.12)) if shot.speech else 0.0
    scale = min(h * (1 - head) / (bottom - TOP), w / (2.9 if shot.view == "bust" else 3.1) / (0.25 + 0.75 * count))
    scale *= float(rng.uniform(0.95, 1.08)) if shot.view != "full" else 0.95
    heads = []
    for i, who in enumerate(shot.who):
        x = w * (i + 0.5) / count + float(rng.uniform(-0.1, 0.1)) * w / count
        size = scale * float(rng.uniform(0.92, 1.0))
        y = h - bottom * size if shot.view != "full" else h - (FEET + 0.1) * size
        lean = float(rng.uniform(-0.1, 0.1))
        pose, mirror = _pose(rng, shot.props), bool(rng.random() < 0.5)
        if pose.prop is not None and count > 1:
            mirror = i == 0  # held outward, not before the other's face
        draw_figure(Pen(sheet, x, y, size, lean, mirror), who, pose, legs=shot.view != "bust")
        heads.append((x, y, size))
    return heads


def _pose(rng: np.random.Generator, props: list[Subject]) -> Pose:
    arms = list(ARMS)[:-1]
    left, right = (str(rng.choice(arms, p=[0.4, 0.18, 0.12, 0.08, 0.08, 0.14])) for _ in range(2))
    prop = props[int(rng.integers(len(props)))] if props and rng.random() < 0.25 else None
    return Pose(left, right, str(rng.choice(MOODS)), float(rng.uniform(-1, 1)), bool(rng.random() < 0.3), prop)


def _letter(sheet: Sheet, rng: np.random.Generator, heads: list[tuple[float, float, float]]) -> None:
    """Speech beside some of the heads, outward where there are several; now and then a sound."""
    w, h = sheet.width, sheet.height
    for i, (x, y, size) in enumerate(heads):
        if rng.random() > 0.62:
            continue
        width = min(0.42 * w / max(1, len(heads) - 0.6), 0.6 * h, max(0.2 * w, 2.4 * size))
        away = -1 if (x > w / 2 if len(heads) == 1 else i == 0) else 1
        place = x + away * (1.15 * size + width * 0.55)
        text = str(rng.choice(SPEECH))
        shout = text.endswith("!") and bool(rng.random() < 0.5)
        bubble(sheet, text, place, 0.17 * min(h, w), width, (x, y + 0.3 * size), shout=shout)
    if rng.random() < 0.08:
        sound(sheet, str(rng.choice(SOUNDS)), w * float(rng.uniform(0.3, 0.7)), h * 0.88, 0.13 * min(h, w))
