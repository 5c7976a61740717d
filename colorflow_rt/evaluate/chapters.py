"""A benchmark on disk: chapters with references, pages by style and the colours that they should have.

chapter_000/references/*.png      in colour
chapter_000/pages/gray/000.png    and any other style
chapter_000/truth/000.png         the same page in colour, of the same size
chapter_000/regions/000.png       optional: 16-bit region ids, 0 for none; with regions.json (id -> character, part)
chapter_000/reference_regions/    optional: the same for references
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colorflow_rt.errors import ImageError, OptionError
from colorflow_rt.jobs import natural_key, pictures_in
from colorflow_rt.pixels import U8, read_picture

Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Part:
    """What a region shows."""

    character: str
    part: str


@dataclass(frozen=True)
class BenchPage:
    """A page of one style, the colours it should have, and what else is known of it."""

    chapter: str
    style: str
    page: Path
    truth: Path
    regions: Path | None
    lines: Path | None

    @property
    def name(self) -> str:
        return f"{self.chapter}/{self.style}/{self.page.stem}"


@dataclass(frozen=True)
class Chapter:
    """A folder of the benchmark; `Chapter.pages` are those of a style, in natural order."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def references(self) -> list[Path]:
        return pictures_in(self.folder / "references")

    @cached_property
    def parts(self) -> dict[int, Part]:
        """Of each region id; empty where the chapter has no regions. OptionError for a damaged regions.json."""
        path = self.folder / "regions.json"
        if not path.is_file():
            return {}
        try:
            found = json.loads(path.read_bytes())
            return {int(region): Part(str(name["character"]), str(name["part"])) for region, name in found.items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise OptionError(
                f"{path} is not as expected ({error!r}): region ids, each with its character and part"
            ) from error

    def pages(self, style: str) -> list[BenchPage]:
        folder = self.folder / "pages" / style
        return [self._page(style, path) for path in pictures_in(folder)] if folder.is_dir() else []

    def _page(self, style: str, page: Path) -> BenchPage:
        truth = _of(self.folder / "truth", page)
        if truth is None:
            raise OptionError(f"{page} has no picture of its colours: expected {self.folder / 'truth' / page.name}")
        lines = _of(self.folder / "pages" / "lineart", page)
        return BenchPage(self.name, style, page, truth, _of(self.folder / "regions", page), lines)

    def reference_regions(self, reference: Path) -> Path | None:
        return _of(self.folder / "reference_regions", reference)


def _of(folder: Path, page: Path) -> Path | None:
    """What belongs to a page in another folder: the file of its name, or else the PNG of its stem."""
    return next((path for path in (folder / page.name, folder / f"{page.stem}.png") if path.is_file()), None)


def read_benchmark(folder: Path) -> list[Chapter]:
    """The chapters in a folder, in natural order; the folder may be a chapter itself. OptionError for none."""
    if not folder.is_dir():
        raise OptionError(f"no folder {folder}: make a benchmark by `colorflow comics bench --out {folder}`")
    folders = [folder, *sorted((path for path in folder.iterdir() if path.is_dir()), key=natural_key)]
    found = [
        Chapter(path) for path in folders if all((path / part).is_dir() for part in ("references", "pages", "truth"))
    ]
    if not found:
        raise OptionError(f"no chapters in {folder}: expected folders with references/, pages/STYLE/ and truth/")
    for chapter in found:
        if not chapter.references:
            raise OptionError(f"no references in {chapter.folder / 'references'}: give pictures in colour")
    return found


def chosen_pages(chapters: Sequence[Chapter], style: str, limit: int | None) -> list[BenchPage]:
    """Pages of a style: all of them, or `limit` in all, an even share of every chapter, spread over it."""
    pages = [chapter.pages(style) for chapter in chapters]
    if limit is None:
        return [page for of_chapter in pages for page in of_chapter]
    return [of_chapter[i] for of_chapter, share in zip(pages, _shares(pages, limit), strict=True) for i in share]


def _shares(pages: Sequence[Sequence[BenchPage]], limit: int) -> Iterator[list[int]]:
    for number, of_chapter in enumerate(pages):
        share = (number + 1) * limit // len(pages) - number * limit // len(pages)
        yield _spread(len(of_chapter), min(share, len(of_chapter)))


def _spread(count: int, wanted: int) -> list[int]:
    """`wanted` of `count` numbers, evenly from the first on."""
    return [i * count // wanted for i in range(wanted)]


def read_ids(path: Path, shape: Iterable[int]) -> Ids:
    """Region ids i32[H,W] of a 16-bit (or 8-bit) picture. ImageError: unreadable, or not of this shape."""
    try:
        with Image.open(path) as picture:
            ids = np.asarray(picture).astype(np.int32)
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: cannot be read as region ids ({error})") from error
    if ids.shape != tuple(shape):
        raise ImageError(f"{path}: has region ids of shape {ids.shape}, its picture {tuple(shape)}; they must be equal")
    return ids


def read_rgb(path: Path) -> U8:
    """u8[H,W,3]."""
    return read_picture(path).rgb
