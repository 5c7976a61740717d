"""Chroma drawn to the references' own at a gray: between a lookup table and what was painted."""

import numpy as np
import pytest

from colorflow_rt.palette import colours_of, steered
from colorflow_rt.pixels import luminance

RED, GREEN, BLUE = (200, 90, 90), (90, 146, 90), (100, 100, 190)  # red and green have the same luminance
NOISE = 30.0


def flat(color, size=32):
    return np.full((size, size, 3), color, np.uint8)


def gray(image):
    return np.rint(luminance(image)).astype(np.uint8)


def error(found, color):
    return float(np.abs(found.mean(axis=(0, 1)) - color).max())


@pytest.mark.parametrize("truth", [RED, GREEN])
def test_of_two_colours_of_one_gray_the_painted_one_is_taken(truth):
    """A table would give the mean of both, which is neither."""
    palette = [colours_of(flat(RED)), colours_of(flat(GREEN)), colours_of(flat(BLUE))]
    level = luminance(flat(truth))[..., None]
    painted = (level + 0.6 * (flat(truth) - level)).astype(np.float32)  # washed out
    found = steered(painted, gray(flat(truth)), palette, NOISE)
    assert error(painted, truth) > 13
    assert error(found, truth) < 0.5 * error(painted, truth)


def test_with_a_painter_who_knows_nothing_it_is_the_table():
    palette = [colours_of(flat(RED)), colours_of(flat(GREEN))]
    level = gray(flat(RED))
    found = steered(np.repeat(level[..., None], 3, axis=2), level, palette, 250.0)
    assert error(found, np.mean([RED, GREEN], axis=0)) < 8


def test_a_gray_that_no_reference_has_stays_as_painted():
    painted = flat((30, 40, 90))
    found = steered(painted, gray(painted), [colours_of(flat(RED))], NOISE)
    np.testing.assert_allclose(found, painted, atol=0.5)


def test_a_colour_that_no_reference_has_at_its_gray_stays_as_painted():
    painted = flat((40, 165, 120))
    painted = (painted.astype(np.float32) + (luminance(flat(RED)) - luminance(painted))[..., None]).astype(np.float32)
    found = steered(painted, gray(flat(RED)), [colours_of(flat((225, 78, 80)))], 12.0)
    np.testing.assert_allclose(found, painted, atol=2)


@pytest.mark.parametrize("shape", [(16, 16), (17, 300), (300, 1)])
def test_luminance_stays_whatever_is_given(shape):
    rng = np.random.default_rng(0)
    painted = rng.integers(0, 256, (*shape, 3), np.uint8)
    palette = [colours_of(rng.integers(0, 256, (50, 70, 3), np.uint8))]
    found = steered(painted, rng.integers(0, 256, shape, np.uint8), palette, NOISE)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(luminance(found), luminance(painted), atol=0.02)


def test_what_is_kept_of_a_picture_is_small_and_whole():
    bins, shares = colours_of(np.random.default_rng(0).integers(0, 256, (1700, 2400, 3), np.uint8))
    assert len(bins) == len(shares) <= 70_000
    assert shares.sum() == pytest.approx(1, abs=1e-3)
    assert len(colours_of(flat(RED, 400))[0]) == 1
