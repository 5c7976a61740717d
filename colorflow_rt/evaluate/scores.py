"""The figures of one coloured page."""

import base64

import numpy as np
from numpy.typing import NDArray
from skimage import color

from colorflow_rt.errors import ImageError
from colorflow_rt.evaluate.methods import Painted
from colorflow_rt.metrics import luminance_ssim, psnr, ssim
from colorflow_rt.pixels import U8, luminance, resize

F64 = NDArray[np.float64]

EQUAL_DB = 100.0  # PSNR of a page that equals the truth, so that means stay finite
DIRECTIONS, PIXELS = 24, 4096  # of the palette distance
BLACK, DARK = 64, 128  # a line pixel of the page is darker than BLACK; found, it is darker than DARK in the result


def page_scores(truth: U8, painted: Painted, lines: U8 | None) -> dict[str, float | None]:
    """What needs nothing but pixels. truth u8[H,W,3]; lines u8[H,W]: the page's line art, where there is any."""
    image, model = painted.image, painted.model
    if model.shape != truth.shape:
        model = resize(model, (truth.shape[1], truth.shape[0]))
    return {
        "psnr": min(psnr(truth, image), EQUAL_DB),
        "psnr_model": min(psnr(truth, model), EQUAL_DB),
        "ssim": ssim(truth, image),
        "palette": palette_distance(truth, image),
        "line_ssim": luminance_ssim(truth, image),
        "line_recall": None if lines is None else line_recall(lines, image),
    }


def palette_distance(truth: U8, image: U8) -> float:
    """How far colours must move, in CIELAB units, for one picture to have as much of each as the other.

    The sliced Wasserstein distance (mean over fixed directions, Rabin et al. 2011) of PIXELS pixels of each.
    """
    step = max(1, truth.shape[0] * truth.shape[1] // PIXELS)
    one, two = (color.rgb2lab(rgb.reshape(1, -1, 3)[:, ::step])[0] for rgb in (truth, image))
    directions = np.random.default_rng(0).standard_normal((3, DIRECTIONS))
    directions /= np.linalg.norm(directions, axis=0)
    return float(np.abs(np.sort(one @ directions, axis=0) - np.sort(two @ directions, axis=0)).mean())


def line_recall(lines: U8, image: U8) -> float | None:
    """Share of the black pixels of the page's lines u8[H,W] that are dark in the result; None for a page without."""
    if lines.shape != image.shape[:2]:
        raise ImageError(f"line art is {lines.shape}, its page {image.shape[:2]}: they must be equal")
    black = lines < BLACK
    return float((luminance(image)[black] < DARK).mean()) if black.any() else None


def packed(features: NDArray[np.float32]) -> str:
    """f32[D] as text that JSON can hold, exactly."""
    return base64.b64encode(features.astype("<f4").tobytes()).decode()


def unpacked(text: str) -> F64:
    """The inverse of `packed`, f64[D]."""
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float64)
