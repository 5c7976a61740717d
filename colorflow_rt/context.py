"""The context image of the canvas' centre, and what kind of page it is made from.

The model sees the page in the style it was trained on: ../shared/facts/colorflow.md sections 1 and 5.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colorflow_rt.errors import OptionError
from colorflow_rt.pixels import F32, U8, luminance
from colorflow_rt.screentone import blend, screentone

Style = Literal["gray", "screentone", "lineart"]
STYLES: tuple[Style, ...] = ("gray", "screentone", "lineart")
Mode = Literal["page", "blend"]
MODES: tuple[Mode, ...] = ("page", "blend")

# Calibrated on generated pages of 256x384 to 1500x2250 as they are, JPEG 25 to 60, scaled by 0.5 to 1.5, tinted and
# noisy; on pages toned in parts with pitches of 3 to 8 pixels; on scikit-image's photographs and textures.
_DOTTED = 0.08  # share of dotted tiles: toned pages 0.15 to 0.9, with a quarter toned 0.09 to 0.6, others up to 0.075
_FLAT_MIDTONES = 0.15  # share of even gray: gray pages and photographs 0.25 to 0.9, shaded line art up to 0.11
_EXTREMES = 0.23  # share of paper and ink: textured photographs (grass, gravel) 0.15 to 0.22, line art from 0.6
_TILE, _TILES = 32, 1500  # side in pixels; tiles looked at on each level of the pyramid
_SMALLEST = 250  # pixels: the pyramid ends where a page's dots would be its polka dots


def context_image(rgb: U8, mode: Mode = "page") -> U8:
    """The context image u8[H,W,3] of a fitted page u8[H,W,3].

    page: its Rec.601 gray in three channels. blend: half of that, half of its screentone (pitch 1/128 of the width
    but at least 3 pixels, 45 degrees): what the released "GrayImage(ScreenStyle)" weights expect.
    """
    if mode not in MODES:
        raise OptionError(f"context is {mode!r}, expected one of {', '.join(MODES)}; mend pack.toml")
    gray = np.rint(luminance(rgb)).astype(np.uint8)
    if mode == "blend":
        gray = blend(gray, screentone(gray, pitch=max(3.0, gray.shape[1] / 128), angle=45.0), 0.5)
    return np.repeat(gray[..., None], 3, axis=2)


def detect_style(rgb: U8) -> Style:
    """What a page u8[H,W,3] is drawn in, by this rule, on its luminance stretched from ink to paper:

    - screentone, if 8 % of its 32x32 tiles are dotted: the strongest wave in the tile is 2.7 to 8 pixels long, has a
      like one across it (hatching has none), and both carry 40 % of the tile's contrast. The page is looked at at full
      size, half, a quarter and so on, for coarser dots.
    - else gray, if 15 % of it is even midtone (3x3 pixels within 24 levels), or less than 23 % of it paper or ink;
    - else lineart. Flat shadows on less than 15 % of line art leave it line art.
    """
    levels = [_tiles(page) for page in _pyramid(luminance(rgb).astype(np.uint8))]
    ink, paper = np.percentile(levels[0], [1, 95])
    levels = [((tiles - ink) * np.float32(255 / max(paper - ink, 40))).clip(0, 255) for tiles in levels]
    if max(map(_dotted, levels)) >= _DOTTED:
        return "screentone"
    extremes = float(((levels[0] <= 24) | (levels[0] >= 232)).mean())
    return "gray" if extremes < _EXTREMES or _flat_midtones(levels[0]) > _FLAT_MIDTONES else "lineart"


def _pyramid(gray: U8) -> list[U8]:
    missing = [(0, max(0, _TILE - side)) for side in gray.shape]
    pages = [np.pad(gray, missing, mode="edge")]
    while min(pages[-1].shape) >= 2 * _SMALLEST:
        pages.append(np.asarray(Image.fromarray(pages[-1]).reduce(2)))
    return pages


def _tiles(page: U8) -> F32:
    """f32[n,32,32]: all tiles of a page, or every so many of a large one."""
    rows, columns = page.shape[0] // _TILE, page.shape[1] // _TILE
    cut = page[: rows * _TILE, : columns * _TILE].reshape(rows, _TILE, columns, _TILE).swapaxes(1, 2)
    chosen = np.linspace(0, rows * columns - 1, min(_TILES, rows * columns)).astype(np.int64)
    tiles: F32 = cut[chosen // columns, chosen % columns].astype(np.float32)
    return tiles


def _flat_midtones(tiles: F32) -> float:
    """Share of pixels between ink and paper whose 3x3 surroundings lie within 24 levels."""
    corners = [tiles[:, y : y + _TILE - 2, x : x + _TILE - 2] for y in range(3) for x in range(3)]
    spread = np.maximum.reduce(corners) - np.minimum.reduce(corners)
    middle = tiles[:, 1:-1, 1:-1]
    return float(((spread < 24) & (middle > 24) & (middle < 232)).mean())


def _dotted(tiles: F32) -> float:
    """Share of tiles with a screen of dots: two equally strong waves at a right angle and little else."""
    tiles = tiles - tiles.mean(axis=(1, 2), keepdims=True)
    contrast = tiles.std(axis=(1, 2))
    window = np.hanning(_TILE + 1)[:_TILE].astype(np.float32)
    y, x = np.meshgrid(*[np.fft.fftfreq(_TILE, 1 / _TILE).astype(np.int64)] * 2, indexing="ij")
    length = np.hypot(y, x)  # waves a tile
    power = np.abs(np.fft.fft2(tiles * np.outer(window, window))) ** 2
    power[:, length < 1.5] = 0  # the mean and what the window makes of it
    peaks = _around(power, np.add).reshape(len(tiles), -1)
    first = np.where(((y > 0) | ((y == 0) & (x > 0))).ravel(), peaks, 0).argmax(axis=1)
    across = ((x % _TILE) * _TILE + (-y) % _TILE).ravel()[first]
    each = np.arange(len(tiles))
    one = peaks[each, first]
    other = _around(peaks.reshape(power.shape), np.maximum).reshape(len(tiles), -1)[each, across]
    share = 2 * (one + other) / (power.sum(axis=(1, 2)) + 1e-6)  # each wave has its mirror image
    dotted = (contrast >= 12) & (length.ravel()[first] >= 4) & (other >= 0.3 * one) & (share >= 0.4)
    return float(dotted.mean())


def _around(planes: NDArray[Any], combine: np.ufunc) -> NDArray[Any]:
    """Each value combined with its eight neighbours, round the edges."""
    for axis in (1, 2):
        planes = combine(combine(planes, np.roll(planes, 1, axis)), np.roll(planes, -1, axis))
    return planes
