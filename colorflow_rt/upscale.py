"""From the model's small picture back to the page: guided super-resolution, then the page's own lines.

`super_resolve` is the third stage of the paper (facts/colorflow.md, section 3). `merge` is ours: a user wants
the lines and lettering of the page as they were drawn, at the page's own resolution.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colorflow_rt.descreen import without_dots
from colorflow_rt.engine import Engine
from colorflow_rt.errors import check_choice
from colorflow_rt.guided import guided_resize
from colorflow_rt.latents import from_model, to_model
from colorflow_rt.linework import line_layer
from colorflow_rt.pixels import luminance as luminance_of
from colorflow_rt.pixels import resize

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Refine = Callable[[Bytes, Bytes], Bytes | Floats]  # colours [H,W,3] and the gray u8[H,W] that they go with

LUMINANCES = ("auto", "page", "lines", "model")
ROWS = 64  # rows per block in `_recolor`: its planes then stay in cache


def super_resolve(engine: Engine, color: Bytes, guide: Bytes, multiple: int) -> Bytes:
    """The picture `color` u8[H,W,3] at the size of `guide` u8[h,w,3], its detail drawn after the guide.

    guide: the page's context image, fitted from the original page at this size (the paper's 1.5x). The engine
    is the graph `gsrp`. Sides that are no multiple of `multiple` (the VAE's factor) are continued by their last
    pixels for the network, and cut again. u8[h,w,3].
    """
    height, width = guide.shape[:2]
    upsampled = resize(color, (width, height))
    margin = ((0, -height % multiple), (0, -width % multiple), (0, 0))
    feeds = {
        "color": to_model(np.pad(upsampled, margin, mode="edge"))[np.newaxis],
        "bw": to_model(np.pad(guide, margin, mode="edge"))[np.newaxis],
    }
    return from_model(engine(feeds)["image"][0])[:height, :width]


def drawn_page(rgb: Bytes, style: str) -> Bytes:
    """The page u8[H,W,3] with its screentone turned into the gray that it stands for, if that is its style."""
    return without_dots(rgb) if style == "screentone" else rgb


def merge(
    page: Bytes,
    color: Bytes,
    luminance: str = "auto",
    saturation: float = 1.0,
    style: str = "gray",
    scale: float | None = None,
    drawn: Bytes | None = None,
    refine: Refine | None = None,
) -> Bytes:
    """The page u8[H0,W0,3] with the colours of the model's picture `color` (u8, any size), u8[H0,W0,3].

    luminance "page": the page's own, to within half a level, with the model's chroma; where a colour does not
    exist at that luminance its chroma is lessened, so white paper and black ink stay neutral.
    "lines": the model's picture with the page's lines and lettering laid over it, multiplied.
    "model": the model's picture, resized (Lanczos).
    "auto": "lines" for line art, whose own luminance is blank paper; else "page", of a screentone page without dots.
    saturation: factor on the chroma, at constant luminance.
    style "gray", "screentone" or "lineart". scale: the page's pixels to one that was painted, where `color` has been
    enlarged already. drawn: `drawn_page`, where it is known. refine: what becomes of the colours beside the page's own
    drawing. Raises OptionError where `luminance` is unknown.
    """
    check_choice("luminance", luminance, LUMINANCES)
    if luminance == "model":
        return _saturated(_lanczos(color, (page.shape[1], page.shape[0])), saturation)
    drawn = drawn_page(page, style) if drawn is None else drawn
    levels = levels_of(drawn)
    if luminance == "lines" or (luminance == "auto" and style == "lineart"):
        layer = line_layer(levels)
        base = spread(color, layer, scale, refine) if style == "lineart" else guided_resize(color, levels, scale)
        return _multiply(_saturated(_eight_bits(base), saturation), layer)
    gray = luminance_of(page if luminance == "page" else drawn)
    return _recolor(gray, spread(color, levels, scale, refine), saturation)


def chroma_layer(
    drawn: Bytes,
    color: Bytes,
    saturation: float = 1.0,
    scale: float | None = None,
    refine: Refine | None = None,
) -> Bytes:
    """The colours alone at the page's size, without its lines, all at middle gray's luminance: u8[H0,W0,3].

    Laid over the page in an image editor's blending mode "Color" it gives about the picture of luminance "page".
    """
    levels = levels_of(drawn)
    return _recolor(np.full(levels.shape, 128, np.float32), spread(color, levels, scale, refine), saturation)


def spread(color: Bytes, levels: Bytes, scale: float | None, refine: Refine | None) -> Bytes | Floats:
    """[H,W,3]: the colours at the size of `levels` u8[H,W], within its lines."""
    large = guided_resize(color, levels, scale)
    return refine(large, levels) if refine else large


def levels_of(rgb: Bytes) -> Bytes:
    """u8[H,W]: the page's luminance, rounded."""
    return np.rint(luminance_of(rgb)).astype(np.uint8)


def _lanczos(image: Bytes, size: tuple[int, int]) -> Bytes:
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def _eight_bits(image: Bytes | Floats) -> Bytes:
    return np.asarray(image if image.dtype == np.uint8 else np.rint(image).clip(0, 255), np.uint8)


def _saturated(image: Bytes, saturation: float) -> Bytes:
    return image if saturation == 1.0 else _recolor(luminance_of(image), image, saturation)


def _recolor(gray: Floats, colors: Bytes | Floats, saturation: float) -> Bytes:
    """u8[H,W,3] of luminance `gray` f32[H,W] (0..255), with the chroma of `colors` [H,W,3].

    Chroma is the difference of a colour to its own gray, so adding it leaves Rec.601 luminance as it is; it is
    scaled down, all three channels alike, until it fits between 0 and 255.
    """
    out = np.empty(colors.shape, np.uint8)
    for start in range(0, len(gray), ROWS):
        block = slice(start, start + ROWS)
        level, color = gray[block], colors[block].astype(np.float32)
        chroma = (color - luminance_of(color)[..., None]) * np.float32(saturation)
        above = np.maximum(chroma.max(axis=-1), 1e-3)
        below = np.maximum(-chroma.min(axis=-1), 1e-3)
        fits = np.minimum(np.minimum((255 - level) / above, level / below), 1)
        chroma *= fits[..., None]
        chroma += level[..., None]
        out[block] = np.rint(chroma, out=chroma).clip(0, 255)
    return out


def _multiply(image: Bytes, layer: Bytes) -> Bytes:
    """image u8[H,W,3] times layer u8[H,W] / 255, rounded."""
    product = image * layer[..., None].astype(np.uint16)
    product += 127
    product //= 255
    return product.astype(np.uint8)
