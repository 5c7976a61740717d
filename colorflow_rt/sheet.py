"""Contact sheets: pictures in labelled columns, a row per page, for a person to look at."""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from colorflow_rt.pixels import write_png

CELL = (300, 420)  # pixels, width and height of a cell: a 2:3 page is shown at 265 x 398
GAP = 12  # between cells, and around the sheet
TITLE, CAPTION = 26, 16  # heights of a row's title and of a caption under a picture
ROWS_PER_SHEET = 8  # a sheet of 8 rows is about 3,800 pixels tall, still opened by any viewer
PAPER, INK, FAINT, FRAME = (246, 246, 244), (20, 20, 20), (96, 96, 96), (200, 200, 196)


@dataclass(frozen=True, eq=False)
class Shot:
    """One picture of a cell, u8[H,W,3] of any size, and the line under it."""

    image: NDArray[np.uint8]
    caption: str = ""


@dataclass(frozen=True, eq=False)
class Row:
    """A page: its title, and for each column the pictures shown there (none, one, or several in a grid)."""

    title: str
    cells: Sequence[Sequence[Shot]]


def contact_sheets(
    columns: Sequence[str], rows: Iterable[Row], rows_per_sheet: int = ROWS_PER_SHEET
) -> Iterator[NDArray[np.uint8]]:
    """Draw the rows, `rows_per_sheet` to a sheet u8[H,W,3]; each sheet repeats the columns' names at its top.

    Rows are taken one at a time, so that a chapter's pictures need never be in memory together.
    """
    strips: list[Image.Image] = []
    for row in rows:
        strips.append(_row(row, len(columns)))
        if len(strips) == rows_per_sheet:
            yield _stack(columns, strips)
            strips = []
    if strips:
        yield _stack(columns, strips)


def write_contact_sheets(folder: Path, columns: Sequence[str], rows: Iterable[Row]) -> list[Path]:
    """Write contact_sheet.png, contact_sheet_02.png and so on; those left by a longer run are removed."""
    written: list[Path] = []
    for number, sheet in enumerate(contact_sheets(columns, rows), start=1):
        path = folder / ("contact_sheet.png" if number == 1 else f"contact_sheet_{number:02d}.png")
        write_png(path, sheet)
        written.append(path)
    for old in folder.glob("contact_sheet_*.png"):
        if old not in written and re.fullmatch(r"contact_sheet_\d+\.png", old.name):
            old.unlink()
    return written


def _stack(columns: Sequence[str], strips: Sequence[Image.Image]) -> NDArray[np.uint8]:
    header = GAP + TITLE
    sheet = Image.new("RGB", (strips[0].width, header + sum(strip.height for strip in strips)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(columns):
        _text(draw, (_left(column), GAP // 2), name, 18, CELL[0], INK)
    top = header
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    return np.asarray(sheet)


def _row(row: Row, columns: int) -> Image.Image:
    strip = Image.new("RGB", (_left(columns), TITLE + CELL[1] + GAP), PAPER)
    draw = ImageDraw.Draw(strip)
    draw.line((GAP, 0, strip.width - GAP, 0), FRAME)
    _text(draw, (GAP, 5), row.title, 14, strip.width - 2 * GAP, INK)
    for column, shots in enumerate(row.cells):
        if shots:
            _cell(strip, draw, (_left(column), TITLE), shots)
    return strip


def _cell(strip: Image.Image, draw: ImageDraw.ImageDraw, corner: tuple[int, int], shots: Sequence[Shot]) -> None:
    """Pictures in a grid as square as their number allows, each as large as its place, aspect kept."""
    across = math.ceil(math.sqrt(len(shots)))
    down = math.ceil(len(shots) / across)
    width, height = CELL[0] // across, CELL[1] // down
    for number, shot in enumerate(shots):
        left, top = corner[0] + number % across * width, corner[1] + number // across * height
        picture = _thumbnail(shot.image, (width - 6, height - 6 - CAPTION))
        strip.paste(picture, (left, top))
        draw.rectangle((left - 1, top - 1, left + picture.width, top + picture.height), outline=FRAME)
        _text(draw, (left, top + picture.height + 2), shot.caption, 11, width - 6, FAINT)


def _thumbnail(image: NDArray[np.uint8], place: tuple[int, int]) -> Image.Image:
    """As large as the place allows; small pages are enlarged up to 4 times, so that they can be read."""
    picture = Image.fromarray(image)
    scale = min(place[0] / picture.width, place[1] / picture.height, 4.0)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _left(column: int) -> int:
    return GAP + column * (CELL[0] + GAP)


@cache
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _text(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    text: str,
    size: int,
    width: int,
    ink: tuple[int, int, int],
) -> None:
    """A line of text, cut in the middle with "..." where it is wider than `width`."""
    font, keep = _font(size), len(text)
    line = text
    while keep > 4 and draw.textlength(line, font=font) > width:
        keep -= 1
        line = f"{text[: (keep + 1) // 2]}...{text[len(text) - keep // 2 :]}"
    draw.text(corner, line, fill=ink, font=font)
