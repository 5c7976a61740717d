"""Screentone: grays as black dots whose area follows darkness (amplitude-modulated halftone)."""

import functools

import numpy as np
from numpy.typing import NDArray

from colorflow_rt.errors import OptionError

U8 = NDArray[np.uint8]


def screentone(gray: U8, *, pitch: float, angle: float, levels: int | None = None) -> U8:
    """Black dots on white for u8[H, W] grays, u8[H, W].

    pitch: pixels from dot to dot (at least 2). angle: of the dot rows, degrees. levels: if given, grays are first
    rounded to so many steps. The black area of a gray is 1 - gray / 255; 0 stays black and 255 stays white.
    Dot edges are soft over about a pixel.
    """
    if pitch < 2:
        raise OptionError(f"screentone pitch {pitch} is too fine: at least 2 pixels")
    if levels is not None and levels < 2:
        raise OptionError(f"screentone levels {levels} are too few: at least 2 levels")
    height, width = gray.shape
    wave = _wave(height, width, pitch, np.deg2rad(angle))
    coverage = wave - _thresholds(levels)[gray]
    coverage *= np.float32(-255 * pitch / 4)  # so steep that an edge is soft over about a pixel
    coverage += 128.0  # half a step more, for rounding
    out: U8 = np.clip(coverage, 0, 255).astype(np.uint8)
    return out


def blend(gray: U8, tone: U8, amount: float) -> U8:
    """(1 - amount) * gray + amount * tone, rounded; amount in 0..1 (ColorFlow's screenstyle augmentation)."""
    if not 0 <= amount <= 1:
        raise OptionError(f"blend amount {amount} is out of range: expected 0 (gray) to 1 (screentone)")
    mixed: U8 = (gray * np.float32(1 - amount) + tone * np.float32(amount) + np.float32(0.5)).astype(np.uint8)
    return mixed


def _wave(height: int, width: int, pitch: float, angle: float) -> NDArray[np.float32]:
    """cos(u) + cos(v) along the two rotated axes, as outer products: cos(a + b) = cos a cos b - sin a sin b."""
    k = 2 * np.pi / pitch
    x, y = np.arange(width) * k, np.arange(height) * k
    c, s = np.cos(angle), np.sin(angle)
    rows = np.stack([np.cos(y * s), -np.sin(y * s), np.cos(y * c), np.sin(y * c)], 1)
    columns = np.stack([np.cos(x * c), np.sin(x * c), np.cos(x * s), np.sin(x * s)])
    wave: NDArray[np.float32] = (rows @ columns).astype(np.float32)  # from float64: the same on every processor
    return wave


@functools.lru_cache(maxsize=64)
def _thresholds(levels: int | None) -> NDArray[np.float32]:
    """Per gray, f32[256], the wave's value above which it is black: the quantile that leaves the right area."""
    grays = np.arange(256) / 255
    steps = grays if levels is None else np.round(grays * (levels - 1)) / (levels - 1)
    t = np.cos((np.arange(256) + 0.5) * 2 * np.pi / 256)
    threshold = np.quantile((t[:, None] + t[None, :]).ravel(), steps)
    threshold[steps <= 0], threshold[steps >= 1] = -9, 9
    table: NDArray[np.float32] = threshold.astype(np.float32)
    return table
