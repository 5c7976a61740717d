"""What goes into the denoiser beside the noise, made from the canvas (docs/pack.md, Graphs and tensors).

The canvas is [2H, 2W, 3]; the page fills its centre, at offset (H // 2, W // 2), and references the rest.
Leading axes, where written as `...`, are batch axes and may be absent.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from colorflow_rt.errors import OptionError
from colorflow_rt.pixels import luminance

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


def to_model(image: Bytes) -> Floats:
    """u8[..., H, W, 3] to f32[..., 3, H, W] in [-1, 1]."""
    return np.ascontiguousarray(np.moveaxis(image, -1, -3), dtype=np.float32) / 127.5 - 1.0


def from_model(image: Floats) -> Bytes:
    """f32[..., 3, H, W] in [-1, 1] to u8[..., H, W, 3]: rounded half to even, values outside clamped."""
    levels = np.rint((np.moveaxis(image, -3, -1) + 1.0) * 127.5)
    return np.ascontiguousarray(np.clip(levels, 0, 255), dtype=np.uint8)


def blacked_out(canvas: Bytes) -> Bytes:
    """u8[..., 2H, 2W, 3] with its centre black: what a 9-channel pack's canvas latents are made of."""
    image = canvas.copy()
    image[_centre(canvas)] = 0
    return image


def inner_only(canvas: Bytes) -> Bytes:
    """u8[..., 2H, 2W, 3] with all but its centre black: what a 9-channel pack's inner latents are made of."""
    image = np.zeros_like(canvas)
    image[_centre(canvas)] = canvas[_centre(canvas)]
    return image


def mask(page_size: tuple[int, int], factor: int) -> Floats:
    """f32[1, 2H // factor, 2W // factor] for a page of (W, H): 1 on the references, 0 on the centre.

    It is made at pixel size and brought down bilinearly (align_corners False, no antialiasing) as the
    released weights expect; the centre is a product of its rows and columns, and so is its reduction.
    """
    width, height = page_size
    centre = np.multiply.outer(_inside(height, factor), _inside(width, factor))
    return np.subtract(1.0, centre[np.newaxis], dtype=np.float32)


def luminance_planes(canvas: Bytes, factor: int, count: int) -> Floats:
    """f32[..., count, 2H / factor, 2W / factor] from u8[..., 2H, 2W, 3], sides multiples of `factor`.

    With Y in [0, 1] the mean Rec.601 luminance of each cell of factor x factor pixels: sin(pi 2^k Y) for
    k = 0 .. count/8 - 1, then the cosines; then the same of the cell's upper quartile, which is what a fill keeps
    where a line crosses it, for k = 0 .. 3 count/8 - 1. They let a small network compare gray levels exactly.
    """
    *batch, height, width, _ = canvas.shape
    cells = luminance(canvas).reshape(*batch, height // factor, factor, width // factor, factor)
    cells = cells.swapaxes(-3, -2).reshape(*batch, height // factor, width // factor, factor * factor)
    kept = -max(1, factor * factor // 4)  # the last of the brightest quarter
    statistics = (cells.mean(axis=-1), count // 8), (np.partition(cells, kept, axis=-1)[..., kept], 3 * count // 8)
    octaves = (np.pi / 255.0 * 2.0 ** np.arange(count)).astype(np.float32)[:, np.newaxis, np.newaxis]
    angles = [y[..., np.newaxis, :, :] * octaves[:most] for y, most in statistics]
    return np.concatenate([wave(angle) for angle in angles for wave in (np.sin, np.cos)], axis=-3, dtype=np.float32)


def condition(
    canvas_latents: Floats,
    mask: Floats,
    inner_latents: Floats | None = None,
    planes: Floats | None = None,
) -> Floats:
    """f32[B, K, h, w]: canvas latents (C), mask (1), then inner latents (C) and luminance planes if any.

    canvas_latents f32[B, C, h, w] are of the whole canvas, or of `blacked_out` where inner_latents, those of
    `inner_only`, follow (9-channel packs). The mask f32[1, h, w] is the same for the whole batch.
    """
    batch, _, h, w = canvas_latents.shape
    parts = [canvas_latents, np.broadcast_to(mask, (batch, 1, h, w)), inner_latents, planes]
    return np.concatenate([part for part in parts if part is not None], axis=1, dtype=np.float32)


def around_centre(latents: Floats, margin: int, factor: int) -> tuple[Floats, int]:
    """Of canvas latents f32[C, h, w] the page's in the centre and at least `margin` pixels around it.

    Returns them, f32[C, h/2 + 2m, w/2 + 2m], and m in pixels: a whole number of latents, at most what there is.
    """
    _, h, w = latents.shape
    m = min(-(-margin // factor), h // 4, w // 4)
    rows, columns = slice(h // 4 - m, h // 4 + h // 2 + m), slice(w // 4 - m, w // 4 + w // 2 + m)
    return np.ascontiguousarray(latents[:, rows, columns]), m * factor


def initial_noise(seed: int, shape: tuple[int, ...]) -> Floats:
    """Standard normal f32 noise from `np.random.Generator(np.random.Philox(seed))`, drawn in C order.

    Stated, so that every backend, PyTorch included, starts from the same; OptionError where seed is negative.
    """
    if seed < 0:
        raise OptionError(f"seed is {seed}, expected 0 or more")
    return np.random.Generator(np.random.Philox(seed)).standard_normal(shape, dtype=np.float32)


def _centre(canvas: NDArray[Any]) -> tuple[Any, ...]:
    height, width = canvas.shape[-3] // 2, canvas.shape[-2] // 2
    rows = slice(height // 2, height // 2 + height)
    return (..., rows, slice(width // 2, width // 2 + width), slice(None))


def _inside(length: int, factor: int) -> Floats:
    """f32[2 length // factor]: the share of each latent row (or column) that is the page's of this side."""
    pixels = np.zeros(2 * length, dtype=np.float32)
    pixels[length // 2 : length // 2 + length] = 1.0
    count = 2 * length // factor
    middles = (np.arange(count) + 0.5) * (2 * length / count) - 0.5
    share: Floats = np.interp(middles, np.arange(2 * length), pixels).astype(np.float32)
    return share
