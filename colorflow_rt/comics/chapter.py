"""A chapter: one cast, one palette, any number of pages and references that share them."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from colorflow_rt.comics.cast import Casting, Subject, cast_characters, cast_props, cast_scenes
from colorflow_rt.comics.layout import Frame, cut_page
from colorflow_rt.comics.page import Page, finish
from colorflow_rt.comics.panel import Shot, draw_panel
from colorflow_rt.comics.sheet import INKED, LIT, Sheet
from colorflow_rt.errors import OptionError

# Namespaces: a chapter's seed is derived from one of these and its number.
BENCHMARK_SEED, TRAINING_SEED, DEMO_SEED = 2412, 11815, 512
SMALLEST = 64  # pixels a side
VIEWS = ("bust", "half", "full")
_CAST, _PAGE, _REFERENCE = range(3)


def chapter_seed(seed: int, number: int) -> int:
    """The seed of chapter `number` of the namespace `seed`; no two namespaces share chapters."""
    high, low = np.random.SeedSequence([seed, number]).generate_state(2).tolist()
    return int(high) << 31 | int(low) >> 1


@dataclass
class Chapter:
    """What stays the same through a chapter; pages and references are drawn on request."""

    seed: int
    characters: list[Subject]
    scenes: list[Subject]
    props: list[Subject]
    names: dict[int, dict[str, str]]
    table: NDArray[np.uint32] = field(repr=False)

    def page(self, index: int, size: tuple[int, int] = (512, 768)) -> Page:
        """Page `index` at (width, height) pixels; the same arguments give the same page."""
        rng = self._rng(_PAGE, index, size)
        canvas = _Canvas(size, rng, self.table)
        frames = cut_page(rng, canvas.width, canvas.height)
        scene = int(rng.integers(len(self.scenes)))
        for frame in frames:
            if rng.random() < 0.25:
                scene = int(rng.integers(len(self.scenes)))
            canvas.panel(frame, self._shot(rng, frame, scene))
        return canvas.finish()

    def reference(self, index: int, size: tuple[int, int] = (512, 768)) -> NDArray[np.uint8]:
        """Colour picture `index` of the chapter, u8[H, W, 3]; never one of its pages.

        It shows character index % characters and scene index % scenes: full figure, close-up or two panels.
        """
        return self.reference_page(index, size).truth

    def reference_page(self, index: int, size: tuple[int, int] = (512, 768)) -> Page:
        """`reference` with all that is known about it: its regions above all."""
        rng = self._rng(_REFERENCE, index, size)
        canvas = _Canvas(size, rng, self.table)
        lap = index // 3 if len(self.characters) == 3 else 0  # else three would always be shown the same way
        kind = (index + lap) % 3
        frames = cut_page(rng, canvas.width, canvas.height, rows=2) if kind == 2 else [canvas.whole()]
        view = ("full", str(rng.choice(["bust", "half"])), None)[kind]
        for i, frame in enumerate(frames):
            first = None if i else self.characters[index % len(self.characters)]
            scene = int(rng.integers(len(self.scenes))) if i else index % len(self.scenes)
            canvas.panel(frame, self._shot(rng, frame, scene, first, view, speech=False))
        return canvas.finish()

    def _rng(self, kind: int, index: int, size: tuple[int, int]) -> np.random.Generator:
        if index < 0:
            raise OptionError(f"page index {index} is negative: count from 0")
        return np.random.default_rng(np.random.SeedSequence([self.seed, kind, index, *size]))

    def _shot(
        self,
        rng: np.random.Generator,
        frame: Frame,
        scene: int,
        first: Subject | None = None,
        view: str | None = None,
        speech: bool = True,
    ) -> Shot:
        """A shot that suits the panel's shape; `first` is shown whoever else is."""
        x0, y0, x1, y1 = frame.box()
        wide = (x1 - x0) / (y1 - y0)
        shares = [0.5, 0.35, 0.15] if wide > 0.8 else [0.25, 0.45, 0.3]
        view = view or str(rng.choice(VIEWS, p=shares))
        two = rng.random() < 1.2 * (wide - 0.5) and (view != "full" or wide > 1)
        who = [first] if first is not None else []
        others = [c for c in self.characters if c is not first]
        who += [others[int(i)] for i in rng.permutation(len(others))[: 1 + two - len(who)]]
        return Shot(self.scenes[scene], who, view, self.props, int(rng.integers(2**31)), speech)


class _Canvas:
    """The page while its panels are drawn, at a multiple of its size."""

    def __init__(self, size: tuple[int, int], rng: np.random.Generator, table: NDArray[np.uint32]):
        if min(size) < SMALLEST:
            raise OptionError(f"page size {size[0]}x{size[1]} is too small: at least {SMALLEST} px a side")
        self.factor = 3 if min(size) < 160 else 2
        self.width, self.height = size[0] * self.factor, size[1] * self.factor
        self.line = max(0.7, min(size) / 250) * self.factor
        self.hatched = rng.random() < 0.2
        self.sheet = Sheet(self.width, self.height, self.line)
        self.table = table

    def whole(self) -> Frame:
        """All of the page as one panel."""
        return Frame(np.array([[0, 0], [self.width, 0], [self.width, self.height], [0, self.height]], np.float64))

    def panel(self, frame: Frame, shot: Shot) -> None:
        """Draws a panel inside its frame."""
        x0, y0, x1, y1 = frame.box()
        sheet = Sheet(x1 - x0, y1 - y0, self.line, hatched=self.hatched)
        draw_panel(sheet, shot)
        corners = (frame.corners - (x0, y0)).ravel().tolist()
        mask = Image.new("L", (sheet.width, sheet.height))
        ImageDraw.Draw(mask).polygon(corners, 255)
        self.sheet.picture.paste(sheet.picture, (x0, y0), mask)
        outline = np.concatenate([frame.corners, frame.corners[:2]]).ravel().tolist()
        self.sheet.draw.line(outline, (0, INKED, LIT), round(self.line * 1.5))

    def finish(self) -> Page:
        """The page at its own size."""
        return finish(self.sheet, self.table, self.factor)


def make_chapter(seed: int) -> Chapter:
    """The cast, scenes and palette drawn from `seed` (see chapter_seed)."""
    casting = Casting(np.random.default_rng(np.random.SeedSequence([seed, _CAST])))
    characters = cast_characters(casting, int(casting.rng.integers(2, 5)))
    scenes = cast_scenes(casting, int(casting.rng.integers(2, 4)))
    props = cast_props(casting, 2)
    return Chapter(seed, characters, scenes, props, casting.names, casting.palette.table())


def region_names(chapter: Chapter) -> dict[int, dict[str, str]]:
    """Region id -> {"character": ..., "part": ...}; backgrounds and props have the character "scene"."""
    return {region: dict(name) for region, name in chapter.names.items()}
