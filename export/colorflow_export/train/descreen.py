"""The small network that takes screentone out of a page: `colorflow_rt/descreen.onnx`.

Inverse halftoning is an old problem with a local answer: near a line, how much ink is dots? A U-Net of a few
layers, at the page's own size, learns it from generated pages, which have dots of any pitch and angle and the gray
that they stand for. It has no norms, so a crop and a whole page give the same.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from colorflow_export.train.beside import export_beside
from colorflow_export.train.config import TrainOptions
from colorflow_export.train.loop import Trainer, device
from colorflow_rt.comics import TRAINING_SEED, Page, chapter_seed, make_chapter

U8 = NDArray[np.uint8]
FIRST = 1_000_000  # chapters from here on, which the other trainings never see
SIZES = ((512, 768), (768, 512), (640, 960), (384, 576))
INK = 2.0  # how much more it costs to lose a line
SQUARED = 5.0  # weight of the squared error beside the absolute one
CROP, CROPS = 96, 32  # side in pixels; of each drawn page
UNITS = (2.5, 16.0)  # range of the dots' unit in pixels, all octaves alike; pitches are 0.8 to 1.6 of it
WIDTHS = (32, 48, 64)
INKED = 0.4  # share of crops that get hatching or small print, which must stay
ROUGH = 0.3  # share of crops that have been through a JPEG file or a resize


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(F.silu(x))))  # type: ignore[no-any-return]


class Descreener(nn.Module):
    """page f32[B,1,H,W] in 0..1, sides multiples of 8 -> the gray page f32[B,1,H,W], not clamped."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.into = nn.Conv2d(4, widths[0], 3, padding=1)
        self.down = nn.ModuleList(nn.Sequential(_Block(width), _Block(width)) for width in widths)
        self.up = nn.ModuleList(nn.Sequential(_Block(width), _Block(width)) for width in widths[:-1])
        pairs = list(pairwise(widths))
        self.shrink = nn.ModuleList(nn.Conv2d(fine, coarse, 4, stride=2, padding=1) for fine, coarse in pairs)
        self.grow = nn.ModuleList(nn.Conv2d(coarse, 4 * fine, 1) for fine, coarse in pairs)
        self.out = nn.Conv2d(widths[0], 4, 3, padding=1)

    def forward(self, page: Tensor) -> Tensor:
        x = self.into(F.pixel_unshuffle(page * 2 - 1, 2))
        kept = []
        for level, shrink in zip(self.down[:-1], self.shrink, strict=True):
            kept.append(level(x))
            x = shrink(kept[-1])
        x = self.down[-1](x)
        for level, grow, beside in reversed(list(zip(self.up, self.grow, kept, strict=True))):
            x = level(beside + F.pixel_shuffle(grow(x), 2))
        return page + F.pixel_shuffle(self.out(x), 2)


class _Crops(IterableDataset[tuple[Tensor, Tensor]]):
    """Endless batches (toned, gray) u8[B,C,C]; pages are drawn as they are needed, each gives CROPS crops."""

    def __init__(self, batch: int, seed: int) -> None:
        self.batch, self.seed = batch, seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        rng = np.random.default_rng(self.seed)
        waiting: list[tuple[U8, U8]] = []
        while True:
            while len(waiting) < 4 * CROPS:  # the crops of a batch are of several pages
                waiting += _page_crops(rng)
            drawn = [waiting.pop(int(rng.integers(len(waiting)))) for _ in range(self.batch)]
            toned, gray = (torch.from_numpy(np.stack(images)) for images in zip(*drawn, strict=True))
            yield toned, gray


def _page_crops(rng: np.random.Generator) -> Iterator[tuple[U8, U8]]:
    chapter = make_chapter(chapter_seed(TRAINING_SEED, FIRST + int(rng.integers(1_000_000))))
    size = SIZES[rng.integers(len(SIZES))]
    page = chapter.page(int(rng.integers(4)), size)
    for _ in range(CROPS):
        y, x = (int(rng.integers(side - CROP + 1)) for side in (size[1], size[0]))
        yield _crop(page, np.s_[y : y + CROP, x : x + CROP], rng)


def _crop(page: Page, place: tuple[slice, slice], rng: np.random.Generator) -> tuple[U8, U8]:
    part = Page(page.truth[place].copy(), page.lines[place].copy(), page.shading[place], page.regions[place])
    if rng.random() < INKED:
        ink = _hatching(rng) if rng.random() < 0.6 else _glyphs(rng)
        part.truth[ink], part.lines[ink] = 0, 0
    share = None if rng.random() < 0.8 else float(rng.random())
    toned = part.screentone(int(rng.integers(2**31)), share, unit=float(np.exp(rng.uniform(*np.log(UNITS)))))
    return _roughened(toned, rng) if rng.random() < ROUGH else toned, part.gray()


def _hatching(rng: np.random.Generator) -> NDArray[np.bool_]:
    """bool[C,C]: parallel strokes in part of a crop, which no screen is."""
    y, x = np.mgrid[:CROP, :CROP].astype(np.float32)
    turn, period = rng.uniform(0, np.pi), rng.uniform(3, 12)
    strokes = (np.cos(turn) * x + np.sin(turn) * y) % period < max(1.2, period * rng.uniform(0.15, 0.4))
    return np.asarray(strokes & _somewhere(rng))


def _glyphs(rng: np.random.Generator) -> NDArray[np.bool_]:
    """bool[C,C]: small print of any script in part of a crop: marks in rows, no two alike."""
    height, width, dot = (int(rng.integers(*limits)) for limits in ((5, 16), (4, 12), (1, 4)))
    marks = rng.random((CROP // dot + 1, CROP // dot + 1)) < 0.55
    rows, columns = np.arange(CROP) % (height + 4) < height, np.arange(CROP) % (width + 2) < width
    return marks.repeat(dot, 0).repeat(dot, 1)[:CROP, :CROP] & rows[:, None] & columns & _somewhere(rng)


def _somewhere(rng: np.random.Generator) -> NDArray[np.bool_]:
    place = np.zeros((CROP, CROP), bool)
    (top, bottom), (left, right) = (np.sort(rng.integers(0, CROP + 1, 2)) for _ in range(2))
    place[top:bottom, left:right] = True
    return place


def _roughened(toned: U8, rng: np.random.Generator) -> U8:
    """As scans are: noise, and dots softened a little."""
    soft = Image.fromarray(toned).resize((CROP * 3 // 4, CROP * 3 // 4), Image.Resampling.BICUBIC)
    image = np.asarray(soft.resize((CROP, CROP), Image.Resampling.BICUBIC)) if rng.random() < 0.5 else toned
    return np.asarray((image + rng.normal(0, 8, image.shape)).clip(0, 255), np.uint8)


def train_descreen(work: Path, options: TrainOptions, minutes: float | None) -> None:
    """L1 on the gray page, most of all where it is ink, and on its differences (lines)."""
    net = Descreener().to(device()).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    trainer = Trainer(net, work, options)
    seed = options.seed + trainer.step + 1_000_000 * trainer.rank
    batches = iter(DataLoader(_Crops(options.batch, seed), batch_size=None, num_workers=1, prefetch_factor=4))

    def loss(step: int) -> Tensor:
        toned, gray = (image.to(device())[:, None].float() / 255 for image in next(batches))
        with torch.autocast(toned.device.type, torch.bfloat16):
            output = net(toned)
        lines = F.l1_loss(output.diff(dim=3), gray.diff(dim=3)) + F.l1_loss(output.diff(dim=2), gray.diff(dim=2))
        weight = 1 + INK * (gray < 0.25)
        error = output - gray
        total: Tensor = (weight * error.abs()).mean() + lines + SQUARED * error.square().mean()
        return total

    trainer.run(loss, minutes=minutes)


def export_descreen(work: Path, out: Path) -> None:
    """Write the trained network as the runtime reads it, for pages of any size."""
    export_beside(Descreener(), work, "descreen", out, ("page", "gray"), multiple=8)
