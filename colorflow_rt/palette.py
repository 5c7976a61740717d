"""Chroma drawn towards the colours that the references have at a pixel's gray, among like surroundings.

A table from gray level to mean reference colour knows which colours there are, and not which of them is meant. Two
things say which: what was painted, and what lies around a spot, for a fill has much the same neighbours wherever it is
drawn (by such neighbourhoods Welsh, Ashikhmin and Mueller, "Transferring Color to Greyscale Images", SIGGRAPH 2002,
match single pixels). The mean of the references' colours at a gray, each weighed by how alike its surroundings are and
by how near it is to what was painted, is the best guess from all of it (the posterior mean under Gaussian error of the
painter). Surroundings are histograms of grays about the cells of a grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from colorflow_rt.evened import cells_of, looked_up
from colorflow_rt.pixels import luminance

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

TONES, BINS = 256, 32
SPAN = 192.0  # levels: bins reach from -SPAN to SPAN, along blue less luminance and red less luminance
STEP = 2 * SPAN / BINS
ALIKE = 0.8  # levels: standard deviation of what counts as one gray
DOUBT = 0.03  # weight of what was painted, where 1 is all of a gray's reference pixels of just that colour
PIXELS = 65_536  # that are looked at of a picture
CELLS = 30  # of the grid, along the longer side; of strips, along three times the shorter one
AROUND = (0.7, 2.5)  # cells: standard deviations of two neighbourhoods
INK, PAPER = 24, 250  # grays below and from here on are everywhere, and say nothing of a place
SHARP = 120.0  # how much likeness of surroundings (a cosine) decides
RED, GREEN, BLUE = 0.299, 0.587, 0.114  # Rec. 601


@dataclass(frozen=True, eq=False)
class Colours:
    """Of one picture: what stands where.

    around: f32[C,F], the surroundings of its cells, of unit length. For each colour in each cell: cell i32[N],
    bin i32[N] (of gray, blue and red less gray), share f32[N] of the picture's pixels.
    """

    around: Floats
    cell: Ints
    bin: Ints
    share: Floats


def colours_of(picture: Bytes) -> Colours:
    """Which colours stand where in a picture u8[H,W,3]."""
    every = max(1, round((picture[..., 0].size / PIXELS) ** 0.5))
    seen = picture[::every, ::every].astype(np.float32)
    gray = luminance(seen)
    levels = np.rint(gray).astype(np.uint8)
    blue, red = (np.clip((seen[..., c] - gray + SPAN) / STEP, 0, BINS - 1).astype(np.int64) for c in (2, 0))
    sides, cells = cells_of(levels.shape, CELLS)
    places = ((cells.astype(np.int64) * TONES + levels) * BINS + blue) * BINS + red
    found, counts = np.unique(places, return_counts=True)
    cell, bin = np.divmod(found, TONES * BINS * BINS)
    return Colours(
        _around(levels, sides, cells),
        cell.astype(np.int32),
        bin.astype(np.int32),
        (counts / gray.size).astype(np.float32),
    )


def steered(colors: Bytes | Floats, guide: Bytes, palette: Sequence[Colours], noise: float) -> Floats:
    """f32[H,W,3]: `colors` [H,W,3] with chroma nearer to the palette's at the gray `guide` u8[H,W]; luminance stays.

    palette: `colours_of` the references. noise: the painter's error in chroma, in levels along each axis.
    """
    found = colors.astype(np.float32)
    gray = luminance(found)
    blue, red = found[..., 2] - gray, found[..., 0] - gray
    sides, cells = cells_of(guide.shape, CELLS)
    known = _Known(palette, _around(guide, sides, cells))
    spots = (cells * TONES + guide).ravel()
    moves = known.moves(*_means(spots, len(known.weights) * TONES, blue, red), noise)
    _move(found, moves.reshape(*sides, TONES, 3), guide)
    return found


class _Known:
    """The references' colours, sorted by gray, and how much each weighs in the cells of a page.

    gray, blue, red f32[K]; weights f32[C,K]. around: f32[C,F] of the page.
    """

    def __init__(self, palette: Sequence[Colours], around: Floats) -> None:
        first = np.cumsum([0, *(len(one.around) for one in palette)])
        cell = np.concatenate([one.cell + start for one, start in zip(palette, first, strict=False)])
        bins, column = np.unique(np.concatenate([one.bin for one in palette]), return_inverse=True)
        share = np.concatenate([one.share for one in palette])
        stands = sparse.csr_matrix((share, (column, cell)), shape=(len(bins), int(first[-1])))
        alike = around @ np.concatenate([one.around for one in palette]).T
        alike -= alike.max(axis=1, keepdims=True)
        alike *= SHARP
        np.exp(alike, out=alike)
        self.weights: Floats = np.ascontiguousarray((stands @ np.ascontiguousarray(alike.T)).T)
        middles = ((np.arange(BINS) + 0.5) * STEP - SPAN).astype(np.float32)
        self.gray = bins // BINS**2
        self.blue, self.red = middles[bins // BINS % BINS], middles[bins % BINS]

    def moves(self, count: Floats, blue: Floats, red: Floats, noise: float) -> Floats:
        """f32[C*TONES,3]: by cell and gray, how far painted chroma moves along blue and red, and the count.

        count, blue, red f32[C*TONES]: pixels that there are, and their mean chroma.
        """
        found = np.zeros((len(count), 3), np.float32)
        found[:, 2] = count
        reach = int(np.ceil(3 * ALIKE))
        for level in np.unique(np.flatnonzero(count) % TONES):
            first, last = np.searchsorted(self.gray, [level - reach, level + reach + 1])
            if first == last:
                continue
            spots = np.flatnonzero(count[level::TONES])
            weights = self.weights[spots, first:last] * np.exp(
                -np.square((self.gray[first:last] - level) / ALIKE) / 2
            ).astype(np.float32)
            weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-30)
            spots = spots * TONES + level
            along_blue = self.blue[first:last] - blue[spots][:, None]
            along_red = self.red[first:last] - red[spots][:, None]
            weights *= np.exp((np.square(along_blue) + np.square(along_red)) / np.float32(-2 * noise**2))
            total = weights.sum(axis=1) + DOUBT
            found[spots, 0] = (weights * along_blue).sum(axis=1) / total
            found[spots, 1] = (weights * along_red).sum(axis=1) / total
        return found


def _around(levels: Bytes, sides: tuple[int, int], cells: Ints) -> Floats:
    """f32[C,F]: square roots of the histograms of grays about each cell of a picture u8[H,W], of unit length."""
    pixels = np.bincount((cells * TONES + levels).ravel(), minlength=sides[0] * sides[1] * TONES)
    counts = pixels.astype(np.float32).reshape(*sides, TONES)
    counts[..., :INK] = counts[..., PAPER:] = 0
    found = []
    for wide in AROUND:
        near = np.sqrt(ndimage.gaussian_filter(counts, (wide, wide, ALIKE), mode="constant", truncate=3))
        near /= np.maximum(np.linalg.norm(near, axis=-1, keepdims=True), 1e-6) * len(AROUND) ** 0.5
        found.append(near.reshape(-1, TONES))
    return np.concatenate(found, axis=1)


def _means(spots: NDArray[np.integer], length: int, blue: Floats, red: Floats) -> tuple[Floats, Floats, Floats]:
    """Count, mean blue and mean red of the pixels of each spot, f32[length]."""
    count = np.bincount(spots, minlength=length).astype(np.float32)
    mean_blue, mean_red = (
        (np.bincount(spots, chroma.ravel(), length) / np.maximum(count, 1)).astype(np.float32) for chroma in (blue, red)
    )
    return count, mean_blue, mean_red


def _move(found: Floats, moves: Floats, guide: Bytes) -> None:
    """Add to `found` f32[H,W,3] the moves f32[rows,columns,TONES,3], between the middles of cells, by their counts."""
    moves[..., :2] *= moves[..., 2:]
    for row, near in enumerate(looked_up(moves, guide)):
        blue, red = near[:, 0] / near[:, 2], near[:, 1] / near[:, 2]
        found[row, :, 0] += red
        found[row, :, 1] -= (RED * red + BLUE * blue) / GREEN
        found[row, :, 2] += blue
