"""Chroma evened over fills: noise goes, two colours of one gray stay, luminance is not touched."""

import numpy as np
import pytest

from colorflow_rt.evened import evened
from colorflow_rt.pixels import luminance

NOISE = 20.0
RED, GREEN, BLUE = (200, 90, 90), (90, 146, 90), (100, 100, 190)


def painted(colors: np.ndarray, deviation: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The colours as a painter leaves them: chroma of so many levels off, in blotches; and the page's gray."""
    rng = np.random.default_rng(seed)
    height, width = colors.shape[:2]
    blotches = rng.normal(0, deviation, (height // 8, width // 8, 3)).repeat(8, 0).repeat(8, 1)
    blotches -= luminance(blotches.astype(np.float32))[..., None]
    return np.rint(colors + blotches).clip(0, 255).astype(np.uint8), np.rint(luminance(colors)).astype(np.uint8)


def halves(left: tuple[int, int, int], right: tuple[int, int, int], size: int = 192) -> np.ndarray:
    colors = np.empty((size, size, 3), np.uint8)
    colors[:, : size // 2], colors[:, size // 2 :] = left, right
    return colors


def error(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.sqrt(np.square(found.astype(float) - truth).sum(axis=-1).mean()))


def test_noise_goes_from_fills() -> None:
    truth = halves(RED, BLUE)
    noisy, gray = painted(truth, 12)
    assert error(evened(noisy, gray, NOISE), truth) < 0.35 * error(noisy, truth)


def test_two_colours_of_one_gray_stay() -> None:
    """Red and green of the same luminance side by side: their mean would be neither."""
    truth = halves(RED, GREEN)
    noisy, gray = painted(truth, 12)
    assert len(np.unique(gray)) == 1
    found = evened(noisy, gray, NOISE)
    assert error(found, truth) < error(noisy, truth)
    distance = np.linalg.norm(found[:, :96].mean(axis=(0, 1)) - found[:, 96:].mean(axis=(0, 1)))
    assert distance > 0.9 * np.linalg.norm(np.subtract(RED, GREEN))


@pytest.mark.parametrize("between", [384, 6144])  # the latter makes a strip of it
def test_what_is_far_away_is_another_fill(between: int) -> None:
    truth = np.concatenate([halves(RED, RED), np.full((between, 192, 3), 255, np.uint8), halves(GREEN, GREEN)])
    noisy, gray = painted(truth, 12)
    found = evened(noisy, gray, NOISE)
    assert error(found[:192], truth[:192]) < 0.4 * error(noisy[:192], truth[:192])
    assert error(found[-192:], truth[-192:]) < 0.4 * error(noisy[-192:], truth[-192:])


@pytest.mark.parametrize("shape", [(16, 16), (17, 400), (2000, 16)])
def test_luminance_is_not_touched_whatever_the_shape(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    color = rng.integers(0, 256, (*shape, 3), np.uint8)
    gray = rng.integers(0, 256, shape, np.uint8)
    found = evened(color, gray, NOISE)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(luminance(found), luminance(color), atol=0.01)


def test_without_noise_nothing_changes() -> None:
    noisy, gray = painted(halves(RED, BLUE), 12)
    np.testing.assert_allclose(evened(noisy, gray, 0.0), noisy, atol=0.01)
