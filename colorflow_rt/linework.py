"""A page's lines and lettering as a layer of their own, without its grays.

Gray fills go by dividing by the page's background (a morphological closing: what is left when everything
narrower than its window and darker than its surroundings is taken away). Screentone goes before (`descreen`).
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Bytes = NDArray[np.uint8]

BLACK = 96  # fills darker than this are drawn black areas, and kept
INK = 24  # the same where blacks are clean, as in colour pictures
NARROW = 60  # lines are narrower than this share (1 / NARROW) of the page's shorter side
OPEN = 160  # levels from which on there is no line between two fills


def line_layer(gray: Bytes, black: int = BLACK) -> Bytes:
    """u8[H,W]: 255 where there is no line, 0 where there is a black one; to be multiplied over colours.

    gray u8[H,W] is the page's luminance, without dots. Fills darker than `black` are not told from drawn black areas.
    """
    width = max(7, min(gray.shape) // NARROW | 1)
    background = ndimage.minimum_filter(ndimage.maximum_filter(gray, width), width)
    ratio = gray * (np.float32(255) / np.maximum(background, black))
    layer: Bytes = np.minimum(ratio + np.float32(0.5), 255).astype(np.uint8)
    return layer


def fills(layer: Bytes) -> NDArray[np.int32]:
    """i32[H,W]: which fill each pixel lies in, for a `line_layer` u8[H,W]; under a line, the nearest.

    A fill is closed by lines; its pixels touch one another by their sides.
    """
    numbers, _ = ndimage.label(layer >= OPEN)
    nearest = ndimage.distance_transform_edt(numbers == 0, return_distances=False, return_indices=True)
    found: NDArray[np.int32] = numbers[tuple(nearest)].astype(np.int32)
    return found
