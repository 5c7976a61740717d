"""Colours looked up in the references: those of the same part of the drawing, near what was painted.

A table from gray level to mean reference colour knows which colours there are, and not which of them is meant. Two
things say which: what was painted, and which part of the drawing a spot is (`parts`). The mean of the references'
colours, each weighed by how likely it is the same part and by how near it is to what was painted, is the best guess
from both (the posterior mean under Gaussian error of the painter). Where a page has grays, colours of other grays are
none of it, and chroma alone is drawn to the mean; where it has lines alone, colours are, one for each fill.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from colorflow_rt.evened import cells_of, looked_up
from colorflow_rt.linework import INK, fills, line_layer
from colorflow_rt.parts import FEATURES, Parts, parts_of
from colorflow_rt.pixels import luminance

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

TONES, BINS = 256, 32
SPAN = 192.0  # levels: bins reach from -SPAN to SPAN, along blue less luminance and red less luminance
STEP = 2 * SPAN / BINS
EXACT, ROUGH = 0.8, 5.0  # levels: standard deviation of what counts as one gray; of a page that had dots
GRAIN, MEDIAN = 6, 5  # such a page's grays are told apart in steps of so many levels, in so many pixels' median
DOUBT = 0.03  # weight of what was painted, where 1 is all of a spot's colours being just that
PIXELS = 65_536  # that are looked at of a picture
MOST = 6_000  # colours that are kept of a picture, those of most pixels
CELLS = 40  # of the grid, along the longer side; of strips, along three times the shorter one
CLEAR = 200  # levels of a line layer from which on a pixel shows its fill
AT_ONCE = 2_000_000  # pairs of a page's spot and a reference's
RED, GREEN, BLUE = 0.299, 0.587, 0.114  # Rec. 601


@dataclass(frozen=True, eq=False)
class Colours:
    """Of one picture: which colours stand where. One row for each colour in each cell of a grid.

    color f32[N,3]; level i32[N], its luminance, ascending; features f32[N,F], of the parts that have it; share f32[N],
    of the picture's pixels; cell i32[N], of a grid of `sides` rows and columns.
    """

    color: Floats
    level: Ints
    features: Floats
    share: Floats
    cell: Ints
    sides: tuple[int, int]


def colours_of(picture: Bytes, *, lines: bool = False) -> Colours:
    """Which colours stand where in a picture u8[H,W,3]; `lines`: for pages that are lines alone. EngineError."""
    gray = np.rint(luminance(picture)).astype(np.uint8)
    parts = parts_of(gray, lines=lines)
    every = max(1, round((gray.size / PIXELS) ** 0.5))
    few = np.s_[::every, ::every]
    clear = line_layer(gray, INK)[few] >= CLEAR if lines else np.ones_like(gray[few], bool)
    sides, cells = cells_of(clear.shape, CELLS)
    places, cells, levels = parts.places(gray.shape)[few][clear], cells[clear], gray[few][clear]
    seen = picture[few][clear].astype(np.float32)
    blue, red = (np.clip((seen[:, c] - levels + SPAN) / STEP, 0, BINS - 1).astype(np.int64) for c in (2, 0))
    keys = ((levels * np.int64(sides[0] * sides[1]) + cells) * BINS + blue) * BINS + red
    keys, row, count = np.unique(keys, return_inverse=True, return_counts=True)
    color = np.stack([np.bincount(row, seen[:, c]) for c in range(3)], axis=1) / count[:, None]
    level, cell = np.divmod(keys // BINS**2, sides[0] * sides[1])
    kept = np.sort(np.argsort(-count, kind="stable")[:MOST])
    return Colours(
        color[kept].astype(np.float32),
        level[kept].astype(np.int32),
        _mean_features(row, places, parts, len(count))[kept],
        (count[kept] / clear.size).astype(np.float32),
        cell[kept].astype(np.int32),
        sides,
    )


def steered(
    colors: Bytes | Floats, guide: Bytes, palette: Sequence[Colours], noise: float, *, exact: bool = True
) -> Floats:
    """f32[H,W,3]: `colors` [H,W,3] with chroma nearer to the palette's at the gray `guide` u8[H,W]; luminance stays.

    palette: `colours_of` the references. noise: the painter's error in chroma, in levels along each axis. exact:
    whether grays are those of the drawing, not such as dots stand for.
    """
    found, spots, known = colors.astype(np.float32), _Spots(guide, exact), _Known(palette)
    painted = spots.painted(found)
    moves = np.zeros((spots.sides[0] * spots.sides[1] * TONES, 3), np.float32)
    moves[spots.place, 2] = spots.count
    for level in np.unique(spots.place % TONES):
        here = np.flatnonzero(spots.place % TONES == level)
        rows, weights = known.likely(level, spots.features[here], painted[here], noise, exact)
        total = weights.sum(axis=1, keepdims=True)
        moves[spots.place[here], :2] = weights @ known.chroma[rows] - painted[here] * total
    _move(found, moves.reshape(*spots.sides, TONES, 3), spots.tones)
    return found


def filled(colors: Bytes | Floats, levels: Bytes, palette: Sequence[Colours]) -> Bytes | Floats:
    """[H,W,3]: the palette's colours for line art of grays u8[H,W], one for each fill between its lines.

    palette: `colours_of` the references by their lines. Paper is white. `colors` [H,W,3], what was painted, is no help
    (benchmarks/LOG.md), and comes back only where the references show no fill.
    """
    drawn, known = _Fills(levels), _Known(palette)
    if not len(known.level):
        return colors
    every = max(1, AT_ONCE // len(known.level))
    color = np.concatenate(
        [
            _weights(drawn.features[k : k + every], known.features, known.share) @ known.color
            for k in range(0, len(drawn.features), every)
        ]
    )
    color += drawn.paper[:, None] * (255 - color)
    found: Floats = color[drawn.number]
    return found


def sources(
    colors: Bytes | Floats, guide: Bytes, palette: Sequence[Colours], noise: float, style: str, at: tuple[int, int]
) -> list[Floats]:
    """Where in the references the colour of one pixel was looked up, f32[rows,columns] of each: shares of its weight.

    What is missing to 1 stayed as it was painted or, in line art, is paper. Arguments are those of `steered` and
    `filled`; at: x and y of the pixel.
    """
    known, rows = _Known(palette), slice(None)
    if style == "lineart":
        drawn = _Fills(guide)
        fill = drawn.number[at[1], at[0]]
        weights = _weights(drawn.features[fill : fill + 1], known.features, known.share)[0] * (1 - drawn.paper[fill])
    else:
        spots = _Spots(guide, style == "gray")
        here = [spots.row.reshape(guide.shape)[at[1], at[0]]]
        painted = spots.painted(np.asarray(colors, np.float32))[here]
        tone = spots.tones[at[1], at[0]]
        rows, found = known.likely(tone, spots.features[here], painted, noise, style == "gray")
        weights = found[0]
    picture, cell = known.picture[rows], known.cell[rows]
    return [
        np.bincount(cell[picture == number], weights[picture == number], one.sides[0] * one.sides[1])
        .reshape(one.sides)
        .astype(np.float32)
        for number, one in enumerate(palette)
    ]


class _Spots:
    """The pixels of a page that lie in one cell and have one gray, taken together.

    tones u8[H,W]: grays as they are told apart. row i64[H*W]: which spot each pixel belongs to. Of each spot: place,
    its cell times TONES plus its tone; count, of pixels; features f32[S,F].
    """

    def __init__(self, guide: Bytes, exact: bool) -> None:
        self.sides, cells = cells_of(guide.shape, CELLS)
        self.tones = guide if exact else ndimage.median_filter(guide, MEDIAN) // GRAIN * GRAIN + GRAIN // 2
        places = (cells * TONES + self.tones).ravel()
        count = np.bincount(places, minlength=self.sides[0] * self.sides[1] * TONES)
        self.place = np.flatnonzero(count)
        self.count = count[self.place]
        count[self.place] = np.arange(len(self.place))
        self.row = count[places]
        parts = parts_of(guide, lines=False)
        self.features = _mean_features(self.row, parts.places(guide.shape).ravel(), parts, len(self.place))

    def painted(self, colors: Floats) -> Floats:
        """f32[S,2]: the mean chroma of each spot along blue and red, of colours f32[H,W,3]."""
        gray = luminance(colors)
        return np.stack([_means(self.row, colors[..., c] - gray, self.count) for c in (2, 0)], axis=1)


class _Fills:
    """Fills of a page of lines. number i32[H,W]: of each pixel's; features f32[S,F]; paper f32[S]: how likely it is."""

    def __init__(self, levels: Bytes) -> None:
        layer = line_layer(levels)
        self.number = fills(layer)
        parts = parts_of(levels, lines=True)
        clear = (layer >= CLEAR).ravel()
        row, places = self.number.ravel()[clear], parts.places(layer.shape).ravel()[clear]
        count = np.bincount(row, minlength=int(self.number.max()) + 1)
        self.features = _mean_features(row, places, parts, len(count))
        self.paper = 1 / (1 + np.exp(-_means(row, parts.paper.ravel()[places], count)))


class _Known:
    """The colours of several pictures, sorted by gray; picture: the number of each one's."""

    def __init__(self, palette: Sequence[Colours]) -> None:
        level = np.concatenate([one.level for one in palette])
        order = np.argsort(level, kind="stable")
        self.level = level[order]
        self.color, self.features, self.share, self.cell = (
            np.concatenate([getattr(one, name) for one in palette])[order]
            for name in ("color", "features", "share", "cell")
        )
        self.chroma: Floats = self.color[:, (2, 0)] - luminance(self.color)[:, None]
        self.picture = np.repeat(np.arange(len(palette)), [len(one.level) for one in palette])[order]

    def likely(self, level: int, features: Floats, painted: Floats, noise: float, exact: bool) -> tuple[slice, Floats]:
        """Which rows have about this gray, and how likely each is the colour of spots painted f32[K,2]: f32[K,N].

        What is missing to 1 is how likely the spot stays as it was painted.
        """
        alike = EXACT if exact else ROUGH
        reach = int(np.ceil(3 * alike))
        rows = slice(*np.searchsorted(self.level, [level - reach, level + reach + 1]).tolist())
        chroma = self.chroma[rows]
        near = np.exp(np.square((self.level[rows] - level) / np.float32(alike)) / -2).astype(np.float32)
        weights = _weights(features, self.features[rows], self.share[rows] * near)
        apart = painted @ (chroma.T * np.float32(-2))
        apart += np.square(chroma).sum(axis=1)
        apart += np.square(painted).sum(axis=1, keepdims=True)
        apart /= np.float32(-2 * noise**2)
        weights *= np.exp(apart, out=apart)
        weights /= weights.sum(axis=1, keepdims=True) + np.float32(DOUBT)
        return rows, weights


def _weights(features: Floats, known: Floats, share: Floats) -> Floats:
    """f32[K,N]: how likely spots of features f32[K,F] are the known ones f32[N,F], of shares f32[N]; rows sum to 1."""
    weights = features @ known.T
    weights -= weights.max(axis=1, keepdims=True, initial=-1e30)
    np.exp(weights, out=weights)
    weights *= share
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-30)
    return weights


def _mean_features(row: NDArray[np.integer], places: Ints, parts: Parts, rows: int) -> Floats:
    """f32[N,F]: of the pixels of each row, where i32[P] says in which place of `parts` they are."""
    ones = np.ones(len(row), np.float32)
    lies = sparse.csr_matrix((ones, (row, places)), shape=(rows, parts.paper.size))
    mean: Floats = lies @ parts.features.reshape(-1, FEATURES)
    mean /= np.maximum(np.bincount(row, minlength=rows), 1)[:, None].astype(np.float32)
    return mean


def _means(row: NDArray[np.integer], values: Floats, count: NDArray[np.integer]) -> Floats:
    """f32[N]: the mean of each row's values."""
    mean: Floats = (np.bincount(row, values.ravel(), len(count)) / np.maximum(count, 1)).astype(np.float32)
    return mean


def _move(found: Floats, moves: Floats, guide: Bytes) -> None:
    """Add to `found` f32[H,W,3] the moves f32[rows,columns,TONES,3], between the middles of cells, by their counts."""
    moves[..., :2] *= moves[..., 2:]
    for row, near in enumerate(looked_up(moves, guide)):
        blue, red = near[:, 0] / near[:, 2], near[:, 1] / near[:, 2]
        found[row, :, 0] += red
        found[row, :, 1] -= (RED * red + BLUE * blue) / GREEN
        found[row, :, 2] += blue
