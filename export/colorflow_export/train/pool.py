"""The data pool: generated chapters, drawn once, kept on disk, sampled endlessly.

Drawing a page costs as much as training on it, so chapters are drawn once and each gives many samples: any of
its pages, in any style, with any choice of its references, in colours turned to a new palette (`turn_chroma`).
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colorflow_rt import canvas, files
from colorflow_rt.comics import TRAINING_SEED, Chapter, chapter_seed, make_chapter

U8 = NDArray[np.uint8]
PAGES, REFERENCES = 4, 6
DRAWN = 2  # chapters are drawn this many times larger than they are kept, so that lines shrink as scans do
# What is kept is 1.5 times the working size (the guided super-resolution's size): (width, height).
KEPT_SIZES = ((192, 288), (192, 288), (192, 288), (288, 192), (240, 240))


@dataclass(frozen=True)
class PoolChapter:
    """One chapter at 1.5 times the working size."""

    truth: U8  # u8[P,H,W,3]
    gray: U8  # u8[P,H,W]
    lineart: U8  # u8[P,H,W]
    references: U8  # u8[R,H,W,3]
    shown: NDArray[np.float32]  # f32[P,4,256]: share of each region id in each quadrant patch of each page


def pool_files(work: Path) -> list[Path]:
    """The chapters that are drawn, in order."""
    return sorted((work / "pool").glob("*.npz"))


def fill_pool(work: Path, first: int, count: int, progress: Callable[[int, int], None] | None = None) -> None:
    """Draw the chapters first .. first + count - 1 that are not there yet. Can be interrupted and run again."""
    folder = work / "pool"
    folder.mkdir(parents=True, exist_ok=True)
    for done, k in enumerate(range(first, first + count)):
        path = folder / f"{k:06d}.npz"
        if not path.exists():
            buffer = io.BytesIO()
            np.savez(buffer, **vars(draw_chapter(k)))
            files.atomic_write(path, buffer.getvalue())
        if progress:
            progress(done + 1, count)


def draw_chapter(k: int) -> PoolChapter:
    """Chapter k of the training seeds."""
    seed = chapter_seed(TRAINING_SEED, k)
    chapter = make_chapter(seed)
    kept = KEPT_SIZES[k % len(KEPT_SIZES)]
    size = (kept[0] * DRAWN, kept[1] * DRAWN)
    pages = [chapter.page(i, size) for i in range(PAGES)]
    return PoolChapter(
        truth=np.stack([_reduced(page.truth) for page in pages]),
        gray=np.stack([_reduced(page.gray()) for page in pages]),
        lineart=np.stack([_reduced(page.lineart(shaded=i % 2 == 1)) for i, page in enumerate(pages)]),
        references=_references(chapter, size),
        shown=np.stack([_shown(page.regions) for page in pages]),
    )


def _references(chapter: Chapter, size: tuple[int, int]) -> U8:
    return np.stack([_reduced(chapter.reference(i, size)) for i in range(REFERENCES)])


def _shown(regions: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Share of each region id (1..255) in the four quadrant patches (canvas.query_patches), f32[4,256]."""
    patches = canvas.query_patches(regions.clip(max=255).astype(np.uint8))
    counts = [np.bincount(patch.ravel(), minlength=256) for patch in patches]
    shares = np.stack(counts).astype(np.float32)
    shares[:, 0] = 0
    return np.asarray(shares / np.maximum(shares.sum(axis=1, keepdims=True), 1))


def _reduced(image: U8) -> U8:
    return np.asarray(Image.fromarray(image).reduce(DRAWN))


def load_chapter(path: Path) -> PoolChapter:
    with np.load(path) as arrays:
        return PoolChapter(**{name: arrays[name] for name in PoolChapter.__dataclass_fields__})


def turn_chroma(images: list[U8], rng: np.random.Generator) -> list[U8]:
    """The same pictures in another palette: chroma turned by one random angle, or mirrored, luminance kept.

    The gray page therefore stays the same while every colour changes: only the references can tell which.
    """
    angle = rng.uniform(0, 2 * np.pi)
    mirror = 1.0 if rng.random() < 0.5 else -1.0
    turn = np.array([[np.cos(angle), -np.sin(angle) * mirror], [np.sin(angle), np.cos(angle) * mirror]])
    # RGB -> (Y, Cb, Cr) -> turn (Cb, Cr) -> RGB is one 3x3 matrix.
    matrix = (_FROM_YCC @ np.block([[np.ones((1, 1)), np.zeros((1, 2))], [np.zeros((2, 1)), turn]]) @ _TO_YCC).astype(
        np.float32
    )
    return [_into_gamut(image, matrix) for image in images]


_TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
_FROM_YCC = np.linalg.inv(_TO_YCC)


def _into_gamut(image: U8, matrix: NDArray[np.float32]) -> U8:
    """Apply the matrix; colours that leave the gamut move toward their own gray until they fit."""
    turned = image.reshape(-1, 3).astype(np.float32) @ matrix.T
    gray = turned @ np.array([0.299, 0.587, 0.114], np.float32)
    offset = turned - gray[:, None]
    room = np.where(offset > 0, 255.0 - gray[:, None], gray[:, None])
    scale = np.min(room / np.maximum(np.abs(offset), 1e-3), axis=1).clip(0.0, 1.0)
    return np.asarray(np.rint(gray[:, None] + offset * scale[:, None]), np.uint8).reshape(image.shape)
