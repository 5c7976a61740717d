"""How far a picture is from the truth: PSNR, SSIM and CIEDE2000 of 8-bit RGB at full size (scikit-image)."""

import math

import numpy as np
from numpy.typing import NDArray
from skimage import color, metrics

from colorflow_rt.errors import ImageError
from colorflow_rt.pixels import luminance

Image = NDArray[np.uint8]

WINDOW = 11  # pixels: the Gaussian window of SSIM (sigma 1.5), as in Wang et al. 2004


def psnr(truth: Image, image: Image) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and channels of u8[H,W,3]; `inf` for equal ones."""
    _same_size(truth, image)
    if np.array_equal(truth, image):
        return math.inf
    return float(metrics.peak_signal_noise_ratio(truth, image, data_range=255))


def ssim(truth: Image, image: Image) -> float:
    """Mean structural similarity of u8[H,W,3] over the three channels, 1.0 for equal pictures.

    Gaussian window of 11 pixels, sigma 1.5 (Wang et al. 2004). ImageError under 11 pixels a side.
    """
    _same_size(truth, image)
    return _ssim(truth, image, channel_axis=-1)


def luminance_ssim(truth: Image, image: Image) -> float:
    """SSIM of the Rec.601 luminance of two u8[H,W,3]: are lines and lettering still where they were?"""
    _same_size(truth, image)
    return _ssim(luminance(truth), luminance(image), channel_axis=None)


def mean_ciede2000(truth: Image, image: Image) -> float:
    """Mean CIEDE2000 colour difference of two sRGB u8[H,W,3]; about 1 is just noticeable."""
    return float(_ciede2000(truth, image).mean())


def ciede2000_by_region(truth: Image, image: Image, regions: NDArray[np.integer]) -> dict[int, float]:
    """Mean CIEDE2000 of the pixels of every region id in `regions` [H,W]; id 0 means none and is left out."""
    if regions.shape != truth.shape[:2]:
        raise ImageError(f"regions are {regions.shape}, the picture is {truth.shape[:2]}: they must be equal")
    ids, where = np.unique(regions, return_inverse=True)
    pixels = where.ravel()
    sums = np.bincount(pixels, weights=_ciede2000(truth, image).ravel())
    means = sums / np.bincount(pixels)
    return {int(i): float(mean) for i, mean in zip(ids, means, strict=True) if i != 0}


def _ciede2000(truth: Image, image: Image) -> NDArray[np.float64]:
    _same_size(truth, image)
    difference: NDArray[np.float64] = color.deltaE_ciede2000(color.rgb2lab(truth), color.rgb2lab(image))
    return difference


def _ssim(truth: NDArray[np.generic], image: NDArray[np.generic], channel_axis: int | None) -> float:
    if min(truth.shape[:2]) < WINDOW:
        raise ImageError(f"SSIM needs at least {WINDOW} pixels a side, the picture is {truth.shape[:2]}")
    value = metrics.structural_similarity(
        truth,
        image,
        data_range=255,
        channel_axis=channel_axis,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    return float(value)


def _same_size(truth: Image, image: Image) -> None:
    if truth.shape != image.shape or truth.ndim != 3 or truth.shape[2] != 3:
        raise ImageError(f"pictures to compare must be RGB of one size, got {truth.shape} and {image.shape}")
