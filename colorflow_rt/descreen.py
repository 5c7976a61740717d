"""Screentone off a page: the gray that its dots stand for, lines and lettering as they are.

A small network of ours does it at the page's own size (`colorflow-export train descreen`). It belongs to no pack: its
answer is about the page alone. The last step of every page uses it; a pack says whether its model wants to see such
pages, too ([pages] screentone, docs/pack.md).
"""

from functools import cache
from pathlib import Path

import numpy as np

from colorflow_rt.engine import Engine, TensorSpec
from colorflow_rt.pixels import F32, U8, luminance

FILE = Path(__file__).parent / "descreen.onnx"
MULTIPLE = 8  # of the network's input sides
BAND, BESIDE = 1_500_000, 64  # pixels of a page at once, and rows beyond its edge that it sees


def without_dots(rgb: U8) -> U8:
    """The page u8[H,W,3] in grays u8[H,W,3], each dot spread over its surroundings; EngineError."""
    gray = luminance(rgb) / np.float32(255)
    rows = max(MULTIPLE, BAND // gray.shape[1])
    bands = [_band(gray, start, rows) for start in range(0, len(gray), rows)]
    levels = np.rint(np.concatenate(bands) * 255).clip(0, 255).astype(np.uint8)
    return np.repeat(levels[..., np.newaxis], 3, axis=2)


def _band(gray: F32, start: int, rows: int) -> F32:
    """f32[rows,W]: these rows of the page f32[H,W] in 0..1; what is beyond its edges is its edge continued."""
    first = max(0, start - BESIDE)
    seen = gray[first : start + rows + BESIDE]
    padded = np.pad(seen, ((0, -seen.shape[0] % MULTIPLE), (0, -seen.shape[1] % MULTIPLE)), mode="edge")
    found = _engine()({"page": padded[np.newaxis, np.newaxis]})["gray"][0, 0]
    kept: F32 = found[start - first : min(start - first + rows, len(seen)), : gray.shape[1]]
    return kept


@cache
def _engine() -> Engine:
    from colorflow_rt.engine.onnx import OnnxEngine  # a slow import, needed only here

    specs = [TensorSpec(name, "float32", (1, 1, "H", "W")) for name in ("page", "gray")]
    return OnnxEngine(FILE, "descreen", (specs[:1], specs[1:]))
