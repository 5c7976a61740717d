"""Metrics against values worked out by hand or published."""

import math

import numpy as np
import pytest

from colorflow_rt import metrics
from colorflow_rt.errors import ImageError


def flat(red: int, green: int, blue: int, size: int = 16) -> np.ndarray:
    return np.full((size, size, 3), (red, green, blue), np.uint8)


def noisy(seed: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def test_psnr_is_twenty_log_of_the_peak_over_the_error():
    assert metrics.psnr(flat(100, 100, 100), flat(110, 110, 110)) == pytest.approx(20 * math.log10(255 / 10))


def test_psnr_does_not_wrap_around_at_eight_bits():
    assert metrics.psnr(flat(0, 0, 0), flat(255, 255, 255)) == pytest.approx(0.0)
    assert metrics.psnr(flat(255, 255, 255), flat(0, 0, 0)) == pytest.approx(0.0)


def test_equal_pictures_are_infinitely_good():
    picture = noisy(1)
    assert metrics.psnr(picture, picture.copy()) == math.inf
    assert metrics.ssim(picture, picture.copy()) == pytest.approx(1.0)
    assert metrics.mean_ciede2000(picture, picture.copy()) == 0.0


def test_ssim_falls_with_noise():
    picture = np.tile(np.linspace(0, 255, 32).astype(np.uint8)[:, None, None], (1, 32, 3))
    rng = np.random.default_rng(2)
    little, much = (np.clip(picture + rng.normal(0, s, picture.shape), 0, 255).astype(np.uint8) for s in (5, 60))
    assert 1 > metrics.ssim(picture, little) > metrics.ssim(picture, much) > 0


def test_luminance_ssim_sees_lines_but_not_hue():
    lines = flat(255, 255, 255, 32)
    lines[::4] = 0
    tinted = lines.copy()
    tinted[..., 2][lines[..., 2] > 0] = 215  # blue weighs 0.114 in luminance
    assert metrics.luminance_ssim(lines, tinted) > 0.99
    assert metrics.luminance_ssim(lines, flat(128, 128, 128, 32)) < 0.1


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((255, 255, 255), (0, 0, 0), 100.0),
        ((255, 0, 0), (0, 255, 0), 86.61),
        ((0, 0, 255), (0, 0, 250), 0.86),
    ],
)
def test_ciede2000_of_known_colours(one, other, expected):
    assert metrics.mean_ciede2000(flat(*one), flat(*other)) == pytest.approx(expected, abs=0.35)


def test_ciede2000_by_region_averages_inside_each_region_and_leaves_out_none():
    truth, image = flat(255, 255, 255), flat(255, 255, 255)
    regions = np.zeros((16, 16), np.uint16)
    regions[:8], regions[8:12] = 300, 7
    image[8:12] = 0
    image[12:] = (10, 200, 30)
    by_region = metrics.ciede2000_by_region(truth, image, regions)
    assert by_region.keys() == {7, 300}
    assert by_region[300] == 0.0
    assert by_region[7] == pytest.approx(100.0, abs=0.1)


def test_pictures_of_different_sizes_are_refused():
    for measure in (metrics.psnr, metrics.ssim, metrics.luminance_ssim, metrics.mean_ciede2000):
        with pytest.raises(ImageError, match="one size"):
            measure(flat(0, 0, 0, 16), flat(0, 0, 0, 17))


def test_ssim_says_how_small_a_picture_may_be():
    with pytest.raises(ImageError, match="11 pixels"):
        metrics.ssim(flat(0, 0, 0, 10), flat(0, 0, 0, 10))


def test_regions_of_another_size_are_refused():
    with pytest.raises(ImageError, match="regions"):
        metrics.ciede2000_by_region(flat(0, 0, 0), flat(0, 0, 0), np.ones((8, 8), np.uint16))
