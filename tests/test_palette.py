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


def scene(fill, beside):
    """A disc of `fill` on `beside`."""
    rows, columns = np.mgrid[:96, :96]
    disc = (rows - 48) ** 2 + (columns - 48) ** 2 < 24**2
    return np.where(disc[..., None], np.uint8(fill), np.uint8(beside)), disc


@pytest.mark.parametrize(("fill", "beside"), [(RED, (60, 60, 140)), (GREEN, (180, 230, 210))])
def test_of_two_colours_of_one_gray_that_of_like_surroundings_is_taken(fill, beside):
    """The painter says nothing; what lies around the fill says which it is."""
    palette = [colours_of(scene(RED, (60, 60, 140))[0]), colours_of(scene(GREEN, (180, 230, 210))[0])]
    truth, disc = scene(fill, beside)
    level = gray(truth)
    found = steered(np.repeat(level[..., None], 3, axis=2), level, palette, 200.0)
    assert np.abs(found[disc] - np.float32(fill)).max(axis=-1).mean() < 12


def test_within_a_fill_there_are_no_steps_from_cell_to_cell():
    rng = np.random.default_rng(0)
    palette = [colours_of(rng.choice(np.uint8([RED, GREEN, BLUE]), (96, 96))) for _ in range(3)]
    level = gray(flat(RED, 180))
    painted = np.float32(flat(RED, 180)) * 0.5 + level[..., None] * 0.5
    painted[:, 90:] += np.linspace(0, 20, 90, dtype=np.float32)[:, None] * (1, -0.5088, 0)  # at one luminance
    found = steered(painted, level, palette, NOISE)
    assert np.abs(np.diff(found, axis=1)).max() < 4


def test_what_is_kept_of_a_picture_is_small_and_whole():
    kept = colours_of(np.random.default_rng(0).integers(0, 256, (1700, 2400, 3), np.uint8))
    assert len(kept.bin) == len(kept.cell) == len(kept.share) <= 70_000
    assert kept.share.sum() == pytest.approx(1, abs=1e-3)
    assert len(np.unique(colours_of(flat(RED, 400)).bin)) == 1
    assert sum(part.nbytes for part in (kept.around, kept.cell, kept.bin, kept.share)) < 3_000_000
