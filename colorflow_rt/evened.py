"""Chroma that a painter meant to be one colour, made one: noise is taken out of fills, not out of detail.

A fill of a drawing has one gray. The chroma of pixels that are near one another and of one gray (a bilateral grid:
Chen, Paris and Durand, "Real-time Edge-Aware Image Processing with the Bilateral Grid", SIGGRAPH 2007) is brought to
its mean, as far as its variance is that of the painter's own error (Wiener's shrinkage). Where two colours share a gray
the variance is larger, and they stay.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from colorflow_rt.pixels import luminance

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

CELLS = 24  # of the grid, along the longer side; of strips, along three times the shorter one
NEAR = 4.0  # cells: standard deviation of what counts as near
ALIKE = 1.2  # levels: the same of what counts as one gray
TONES = 256


def evened(color: Bytes, guide: Bytes, noise: float) -> Floats:
    """f32[H,W,3]: `color` u8[H,W,3], its luminance unchanged, its chroma evened over fills of `guide` u8[H,W].

    noise: the painter's error in chroma, in levels: root of the mean square, the three channels summed.
    """
    colors = color.astype(np.float32)
    level = luminance(color)[..., None]
    colors -= level
    means = _means(colors, guide, noise**2)
    for row, near in enumerate(looked_up(means, guide)):
        mean, kept = near[:, :3], near[:, 3:]
        colors[row] = mean + kept * (colors[row] - mean)
    colors += level
    return colors


def cells_of(shape: tuple[int, ...], along: int) -> tuple[tuple[int, int], NDArray[np.int32]]:
    """A grid over a picture of (height, width): its rows and columns, and the number of each pixel's cell, i32[H,W].

    It has `along` cells along the longer side, of strips along three times the shorter one.
    """
    height, width = shape
    cell = min(max(shape), 3 * min(shape)) / along
    rows, columns = (max(2, round(side / cell)) for side in shape)
    down = (2 * np.arange(height) + 1) * rows // (2 * height)  # by the pixels' middles, as `between`
    across = (2 * np.arange(width) + 1) * columns // (2 * width)
    return (rows, columns), (down[:, None] * columns + across).astype(np.int32)


def looked_up(grid: Floats, guide: Bytes) -> Iterator[Floats]:
    """For each row of `guide` u8[H,W], f32[W,N]: what a grid f32[rows,columns,TONES,N] holds at its pixels' grays.

    Between the middles of cells on straight lines.
    """
    (down, beyond_down), (across, beyond_across) = (
        between((np.arange(length) + 0.5) * (cells / length), cells)
        for length, cells in zip(guide.shape, grid.shape[:2], strict=True)
    )
    for levels, low, beyond in zip(guide, down, beyond_down, strict=True):
        here = grid[low] + beyond * (grid[low + 1] - grid[low])
        near = here[across, levels]
        near += beyond_across[:, None] * (here[across + 1, levels] - near)
        yield near


def between(place: NDArray[np.floating], cells: int) -> tuple[NDArray[np.int32], Floats]:
    """Of places along so many cells: the cell whose middle is before each, and how far it is to the next (0..1)."""
    place = np.clip(place - place.dtype.type(0.5), 0, cells - 1)
    low = np.minimum(place.astype(np.int32), cells - 2)
    return low, (place - low).astype(np.float32)


def _means(chroma: Floats, guide: Bytes, variance: float) -> Floats:
    """f32[rows,columns,TONES,4]: by cell and gray, mean chroma and how much of a pixel's difference to it stays."""
    sides, cells = cells_of(guide.shape, CELLS)
    spots = (cells * TONES + guide).ravel()
    shape = (*sides, TONES)

    def total(values: Floats) -> Floats:
        found = np.bincount(spots, values.ravel(), int(np.prod(shape)))
        blurred: Floats = ndimage.gaussian_filter(
            found.astype(np.float32).reshape(shape), (NEAR, NEAR, ALIKE), mode="constant", truncate=2.5
        )
        return blurred

    count = np.maximum(total(np.ones(guide.shape, np.float32)), 1e-6)
    mean = np.stack([total(chroma[..., channel]) / count for channel in range(3)], axis=-1)
    spread = total(np.square(chroma).sum(axis=-1)) / count - np.square(mean).sum(axis=-1)
    kept = np.maximum(spread - variance, 0) / np.maximum(spread, 1e-6)
    return np.concatenate([mean, kept[..., None]], axis=-1)
