"""A page's lines and lettering as a layer of their own, without its grays.

Gray fills go by dividing by the page's background (a morphological closing: what is left when everything
narrower than its window and darker than its surroundings is taken away). Screentone goes before (`descreen`).
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Bytes = NDArray[np.uint8]

BLACK = 96  # backgrounds darker than this are drawn black areas, and kept
NARROW = 60  # lines are narrower than this share (1 / NARROW) of the page's shorter side


def line_layer(gray: Bytes) -> Bytes:
    """u8[H,W]: 255 where there is no line, 0 where there is a black one; to be multiplied over colours.

    gray u8[H,W] is the page's luminance, without dots.
    """
    width = max(7, min(gray.shape) // NARROW | 1)
    background = ndimage.minimum_filter(ndimage.maximum_filter(gray, width), width)
    ratio = gray * (np.float32(255) / np.maximum(background, BLACK))
    layer: Bytes = np.minimum(ratio + np.float32(0.5), 255).astype(np.uint8)
    return layer
