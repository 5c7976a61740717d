"""Training samples: canvases as the runtime makes them, from the pool."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

from colorflow_export.train.config import RESAMPLE
from colorflow_export.train.pool import PoolChapter, load_chapter, pool_files, turn_chroma
from colorflow_rt import canvas
from colorflow_rt.comics.page import BINS
from colorflow_rt.pixels import resize

U8 = NDArray[np.uint8]
STYLE_SHARE = {"gray": 0.65, "screentone": 0.22, "lineart": 0.13}
TONES = 2 * BINS  # gray levels that a screentone page has left
CACHED_CHAPTERS = 600


@dataclass(frozen=True)
class CanvasSample:
    """context u8[2H,2W,3] with the page in its style in the centre; target: the same with the page's true colours."""

    context: U8
    target: U8


class Pool:
    """Random access to the drawn chapters, by page shape; keeps the most recently read ones in memory."""

    def __init__(self, work: Path, seed: int) -> None:
        self.files = pool_files(work)
        if not self.files:
            raise SystemExit(
                f"no training data in {work / 'pool'}: run `colorflow-export train pool --work {work}` first"
            )
        self.rng = np.random.default_rng(seed)
        self.cache: dict[Path, PoolChapter] = {}

    def chapter(self) -> PoolChapter:
        path = self.files[self.rng.integers(len(self.files))]
        if path not in self.cache:
            if len(self.cache) >= CACHED_CHAPTERS:
                self.cache.pop(next(iter(self.cache)))
            self.cache[path] = load_chapter(path)
        return self.cache[path]


def styled(chapter: PoolChapter, page: int, rng: np.random.Generator) -> U8:
    """The page in a random style u8[H,W]; screentone once its dots are gone: few grays, not quite the true ones."""
    style = rng.choice(list(STYLE_SHARE), p=list(STYLE_SHARE.values()))
    if style == "gray":
        return np.asarray(chapter.gray[page])
    if style == "lineart":
        return np.asarray(chapter.lineart[page])
    step = np.float32(255 / (TONES - 1))
    toned = np.rint(chapter.gray[page] / step) * step + rng.normal(0, 1.5, chapter.gray[page].shape)
    return np.asarray(np.rint(toned).clip(0, 255), np.uint8)


def canvas_sample(chapter: PoolChapter, size: tuple[int, int], rng: np.random.Generator) -> CanvasSample:
    """One page of the chapter at `size` with 12 patches of its references around it."""
    page = int(rng.integers(len(chapter.truth)))
    sources = list(chapter.references)
    if rng.random() < 0.3:  # approved pages are references, too
        sources += [other for i, other in enumerate(chapter.truth) if i != page]
    count = int(rng.integers(2, len(sources) + 1))
    chosen = [sources[i] for i in rng.permutation(len(sources))[:count]]
    # Shrunk before they are turned to another palette: the drawing of samples must not outlast their training.
    small = [resized(image, size) for image in (chapter.truth[page], *chosen)]
    truth, *references = turn_chroma(small, rng)
    gray = np.repeat(resized(styled(chapter, page, rng), size)[..., None], 3, axis=2)
    tiles = _tiles(references, size, rng)
    return CanvasSample(canvas.assemble(gray, tiles), canvas.assemble(truth, tiles))


def _tiles(references: list[U8], size: tuple[int, int], rng: np.random.Generator) -> list[U8]:
    """12 tiles at random, whole pictures first: a wide choice teaches the model to look everywhere."""
    patches = [patch for reference in references for patch in canvas.reference_patches(reference)]
    wholes = list(range(0, len(patches), 5))
    others = [i for i in rng.permutation(len(patches)) if i % 5]
    order = (wholes + [int(i) for i in others])[:12]
    order += [int(rng.integers(len(patches))) for _ in range(12 - len(order))]
    return [canvas.tile(patches[i], size, RESAMPLE) for i in rng.permutation(order)]


def resized(image: U8, size: tuple[int, int]) -> U8:
    return resize(image, size, RESAMPLE)


class CanvasBatches(IterableDataset[tuple[Tensor, Tensor]]):
    """Endless batches (context, target) u8[B,2H,2W,3]; the pages of a batch have one shape."""

    def __init__(self, work: Path, batch: int, area: int, seed: int) -> None:
        self.work, self.batch, self.area, self.seed = work, batch, area, seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        info = torch.utils.data.get_worker_info()
        pool = Pool(self.work, self.seed + 1000 * (info.id if info else 0))
        waiting: dict[tuple[int, int], list[CanvasSample]] = {}
        while True:
            chapter = pool.chapter()
            size = working_size(chapter.truth.shape[2], chapter.truth.shape[1], self.area)
            for _ in range(2):
                samples = waiting.setdefault(size, [])
                samples.append(canvas_sample(chapter, size, pool.rng))
                if len(samples) == self.batch:
                    yield stacked([s.context for s in samples]), stacked([s.target for s in samples])
                    samples.clear()


def stacked(images: list[U8]) -> Tensor:
    return torch.from_numpy(np.stack(images))


def working_size(width: int, height: int, area: int) -> tuple[int, int]:
    """The page size of about `area` pixels for pages of this shape: sides are multiples of 32."""
    ratio = (width / height) ** 0.5
    side = area**0.5
    return max(32, round(side * ratio / 32) * 32), max(32, round(side / ratio / 32) * 32)
