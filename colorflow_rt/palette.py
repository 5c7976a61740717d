"""Chroma drawn towards the colours that the references have at a pixel's gray: a lookup table that the painter steers.

A table from gray level to mean reference colour knows which colours there are, and not which of them is meant; the
painter knows about which one is meant, and not its exact tint. The mean of the references' colours at a pixel's gray,
each weighed by how near it is to what was painted, is the best guess from both (the posterior mean under Gaussian error
of the painter). As that error grows it becomes the table, as it goes to nothing the painter.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from colorflow_rt.evened import between
from colorflow_rt.pixels import luminance

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Counts = tuple[NDArray[np.int32], Floats]  # bins of one picture that hold something, and their shares of its pixels

TONES, BINS = 256, 32
SPAN = 192.0  # levels: bins reach from -SPAN to SPAN, along blue less luminance and red less luminance
STEP = 2 * SPAN / BINS
ALIKE = 1.0  # levels: standard deviation of what counts as one gray
DOUBT = 0.03  # weight of what was painted, where 1 is all of a gray's reference pixels of just that colour
PIXELS = 65_536  # that are looked at of a picture
BLOCK = 64  # rows
RED, GREEN, BLUE = 0.299, 0.587, 0.114  # Rec. 601


def colours_of(picture: Bytes) -> Counts:
    """How often each colour stands in a picture u8[H,W,3]."""
    every = max(1, round((picture[..., 0].size / PIXELS) ** 0.5))
    seen = picture[::every, ::every].astype(np.float32)
    gray = luminance(seen)
    blue, red = (np.clip((seen[..., c] - gray + SPAN) / STEP, 0, BINS - 1).astype(np.int32) for c in (2, 0))
    bins, counts = np.unique((np.rint(gray).astype(np.int32) * BINS + blue) * BINS + red, return_counts=True)
    return bins, (counts / gray.size).astype(np.float32)


def steered(colors: Bytes | Floats, guide: Bytes, palette: Sequence[Counts], noise: float) -> Floats:
    """f32[H,W,3]: `colors` [H,W,3] with chroma nearer to the palette's at the gray `guide` u8[H,W]; luminance stays.

    palette: `colours_of` the references. noise: the painter's error in chroma, in levels along each axis.
    """
    table = _table(palette, noise)
    found = colors.astype(np.float32)
    for start in range(0, len(guide), BLOCK):
        block = found[start : start + BLOCK]
        gray = luminance(block)
        blue, red = _shift(table, guide[start : start + BLOCK], block[..., 2] - gray, block[..., 0] - gray)
        block[..., 0] += red
        block[..., 1] -= (RED * red + BLUE * blue) / GREEN
        block[..., 2] += blue
    return found


def _table(palette: Sequence[Counts], noise: float) -> Floats:
    """f32[TONES,BINS,BINS,2]: by gray and painted chroma, how far it moves along blue and along red."""
    dense = np.zeros(TONES * BINS * BINS, np.float32)
    for bins, shares in palette:
        dense[bins] += shares
    known = ndimage.gaussian_filter1d(dense.reshape(TONES, BINS, BINS), ALIKE, axis=0, mode="constant")
    known /= np.maximum(known.sum(axis=(1, 2), keepdims=True), 1e-9)
    deviation = noise / STEP

    def near(weights: Floats) -> Floats:
        blurred: Floats = ndimage.gaussian_filter(weights, (0, deviation, deviation), mode="constant", truncate=3)
        return blurred * np.float32(2 * np.pi * deviation**2)

    middles = ((np.arange(BINS) + 0.5) * STEP - SPAN).astype(np.float32)
    blue, red, count = middles[:, None], middles[None, :], near(known)
    moves = [(near(known * axis) - count * axis) / (count + DOUBT) for axis in (blue, red)]
    return np.stack(moves, axis=-1)


def _shift(table: Floats, guide: Bytes, blue: Floats, red: Floats) -> tuple[Floats, Floats]:
    """The table's moves at painted chroma [R,W] of each pixel, between the middles of bins."""
    (low_blue, part_blue), (low_red, part_red) = (
        between((chroma + np.float32(SPAN)) / np.float32(STEP), BINS) for chroma in (blue, red)
    )
    flat = table.reshape(-1, 2)
    corner = (guide.astype(np.int32) * BINS + low_blue) * BINS + low_red
    near = flat[corner]
    near += part_red[..., None] * (flat[corner + 1] - near)
    beyond = flat[corner + BINS]
    beyond += part_red[..., None] * (flat[corner + BINS + 1] - beyond)
    near += part_blue[..., None] * (beyond - near)
    return near[..., 0], near[..., 1]
