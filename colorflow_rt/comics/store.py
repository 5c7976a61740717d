"""Chapters as folders of PNG files."""

import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colorflow_rt.comics.chapter import SMALLEST, Chapter, chapter_seed, make_chapter, region_names
from colorflow_rt.errors import OptionError, OutputError
from colorflow_rt.files import atomic_write

GENERATOR = 1  # raised whenever the same seed gives other pictures, so that old folders are made anew
Picture = NDArray[np.uint8] | NDArray[np.uint16]
MANIFEST = "manifest.json"
PAGE_FOLDERS = ("truth", "pages/gray", "pages/screentone", "pages/lineart", "regions")
REFERENCE_FOLDERS = ("references", "reference_regions")
FOLDERS = (*REFERENCE_FOLDERS, *PAGE_FOLDERS)


def write_chapters(
    out: Path,
    *,
    chapters: int,
    pages: int,
    references: int,
    seed: int,
    size: tuple[int, int] = (512, 768),
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes chapter_000, chapter_001, ... into `out`; chapter k is made from chapter_seed(seed, k).

    Each holds references/NNN.png, truth/NNN.png, pages/{gray,screentone,lineart}/NNN.png, regions/NNN.png (16-bit
    ids, 0 = none), reference_regions/NNN.png (the same for references), regions.json (id -> character and part), and
    manifest.json. Files are renamed into place
    when whole; those of the same seed and size are kept, those of another are replaced. `size` is (width, height)
    in pixels. `progress(done, total)` counts pages and references.

    Raises OptionError (counts, size), OutputError (cannot write; a folder holds files that are not ours).
    """
    _check(chapters, pages, references, seed, size)
    total, done = chapters * (pages + references), 0
    for k in range(chapters):
        folder = out / f"chapter_{k:03d}"
        for _ in _write_chapter(folder, make_chapter(chapter_seed(seed, k)), pages, references, size):
            done += 1
            if progress is not None:
                progress(done, total)


def _check(chapters: int, pages: int, references: int, seed: int, size: tuple[int, int]) -> None:
    for name, value, least in (("chapters", chapters, 1), ("pages", pages, 1), ("references", references, 1)):
        if not least <= value <= 1000:
            raise OptionError(f"{name} {value} is out of range: expected {least} to 1000")
    if seed < 0:
        raise OptionError(f"seed {seed} is negative: expected 0 or more")
    if min(size) < SMALLEST:
        raise OptionError(f"page size {size[0]}x{size[1]} is too small: at least {SMALLEST} px a side")


def _write_chapter(
    folder: Path, chapter: Chapter, pages: int, references: int, size: tuple[int, int]
) -> Iterator[None]:
    """Writes what is missing; yields after every page and reference."""
    manifest = {"generator": GENERATOR, "seed": chapter.seed, "width": size[0], "height": size[1]}
    _prepare(folder, manifest, pages, references)
    names = json.dumps(region_names(chapter), indent=1).encode()
    atomic_write(folder / "regions.json", names)
    for i in range(references):
        paths = [folder / part / f"{i:03d}.png" for part in REFERENCE_FOLDERS]
        if not all(path.exists() for path in paths):
            reference = chapter.reference_page(i, size)
            _write_all(paths, (reference.truth, reference.regions))
        yield
    for i in range(pages):
        paths = [folder / part / f"{i:03d}.png" for part in PAGE_FOLDERS]
        if not all(path.exists() for path in paths):
            page = chapter.page(i, size)
            _write_all(paths, (page.truth, page.gray(), page.screentone(seed=i), page.lineart(), page.regions))
        yield


def _write_all(paths: Sequence[Path], pictures: Sequence[Picture]) -> None:
    for path, picture in zip(paths, pictures, strict=True):
        _write_png(path, picture)


def _prepare(folder: Path, manifest: dict[str, int], pages: int, references: int) -> None:
    """Makes the folders, and removes what an earlier call left there that this one would not write."""
    old = _read_manifest(folder)
    for part in FOLDERS:
        where = folder / part
        try:
            where.mkdir(parents=True, exist_ok=True)
            count = references if part in REFERENCE_FOLDERS else pages
            keep = {f"{i:03d}.png" for i in range(count)} if old == manifest else set()
            for path in where.iterdir():
                if re.fullmatch(r"\d+\.png", path.name) and path.name not in keep:
                    _remove(path, ours=old is not None)
        except OSError as error:
            raise OutputError(f"{where}: {error.strerror}; choose another output folder") from error
    atomic_write(folder / MANIFEST, json.dumps(manifest).encode())


def _remove(path: Path, *, ours: bool) -> None:
    if not ours:
        raise OutputError(f"{path}: not written by `comics make`; choose another output folder")
    path.unlink()


def _read_manifest(folder: Path) -> dict[str, int] | None:
    """The manifest of an earlier call; {} if it cannot be read, None if there is none."""
    try:
        found = json.loads((folder / MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_png(path: Path, picture: Picture) -> None:
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "PNG")
    atomic_write(path, data.getvalue())
