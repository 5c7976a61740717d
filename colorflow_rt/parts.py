"""What part of a drawing each of its places is: features that are alike wherever the same thing is drawn.

A small network of ours finds them, in a drawing's grays or in its lines alone (`colorflow-export train parts`). It
belongs to no pack: its answer is about drawings, and a pack says whether colours are looked up by it ([pages]
palette_noise).
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from colorflow_rt.engine import Engine, TensorSpec
from colorflow_rt.linework import INK, line_layer
from colorflow_rt.pixels import resize

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

FILE = Path(__file__).parent / "parts.onnx"
PIXELS, LONGEST = 98_304, 8  # of a drawing as the network sees it; of strips, so many times that at most
MULTIPLE = 32  # of its sides
FEATURES = 32


@dataclass(frozen=True, eq=False)
class Parts:
    """Of places every four pixels of a drawing as the network sees it.

    features f32[h,w,32]: the product of two places' is the logarithm of how likely they are one part, up to a constant.
    paper f32[h,w]: the log odds that a place belongs to no part: gutters, speech.
    """

    features: Floats
    paper: Floats

    def places(self, shape: tuple[int, int]) -> NDArray[np.int32]:
        """i32[H,W]: the number of the place that each pixel of a picture of this shape belongs to, row by row."""
        (height, width), (rows, columns) = shape, self.paper.shape
        down = (2 * np.arange(height) + 1) * rows // (2 * height)
        across = (2 * np.arange(width) + 1) * columns // (2 * width)
        found: NDArray[np.int32] = (down[:, None] * columns + across).astype(np.int32)
        return found


def parts_of(levels: Bytes, *, lines: bool) -> Parts:
    """The parts of a drawing of grays u8[H,W], by its lines alone or by all its grays; EngineError."""
    short, long = sorted(levels.shape)
    scale = (PIXELS / (short * max(min(long, 3 * short), long / LONGEST))) ** 0.5
    height, width = (max(1, round(side * scale / MULTIPLE)) * MULTIPLE for side in levels.shape)
    seen = resize(levels, (width, height), "box")
    if lines:
        seen = line_layer(seen, INK)
    found = _engine()({"drawing": seen[np.newaxis, np.newaxis] / np.float32(255)})["parts"][0]
    return Parts(np.ascontiguousarray(found[:FEATURES].transpose(1, 2, 0)), found[FEATURES])


@cache
def _engine() -> Engine:
    from colorflow_rt.engine.onnx import OnnxEngine  # a slow import, needed only here

    drawing = TensorSpec("drawing", "float32", (1, 1, "H", "W"))
    parts = TensorSpec("parts", "float32", (1, FEATURES + 1, "h", "w"))
    return OnnxEngine(FILE, "parts", ((drawing,), (parts,)))
