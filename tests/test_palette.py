"""Colours looked up in references: at a gray, of the same part, near what was painted."""

from dataclasses import replace

import numpy as np
import pytest

from colorflow_rt.comics import BENCHMARK_SEED, chapter_seed, make_chapter
from colorflow_rt.linework import fills
from colorflow_rt.metrics import psnr
from colorflow_rt.palette import colours_of, filled, sources, steered
from colorflow_rt.pixels import luminance

RED, GREEN, BLUE = (200, 90, 90), (90, 146, 90), (100, 100, 190)  # red and green have the same luminance
NOISE = 30.0


def flat(color, size=32):
    return np.full((size, size, 3), color, np.uint8)


def gray(image):
    return np.rint(luminance(image)).astype(np.uint8)


def rounded(colors):
    return np.rint(colors).clip(0, 255).astype(np.uint8)


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


@pytest.fixture(scope="module")
def chapter():
    drawn = make_chapter(chapter_seed(BENCHMARK_SEED, 5))
    return drawn.page(1, (384, 576)), [drawn.reference(i, (384, 576)) for i in range(6)]


@pytest.mark.parametrize("exact", [True, False])
def test_of_several_colours_of_one_gray_that_of_the_same_part_is_taken(chapter, exact):
    """The painter says nothing; the table of gray levels is what there is without parts."""
    page, references = chapter
    level = page.gray()
    palette = [colours_of(reference) for reference in references]
    blank = np.repeat(level[..., None], 3, axis=2)
    found = steered(blank, level, palette, 200.0, exact=exact)
    alone = [replace(one, features=np.zeros_like(one.features)) for one in palette]
    table = steered(blank, level, alone, 200.0, exact=exact)
    assert psnr(page.truth, rounded(found)) > psnr(page.truth, rounded(table)) + 2


def test_line_art_is_filled_with_the_colours_of_its_parts(chapter):
    page, references = chapter
    blank = np.full_like(page.truth, 255)
    found = filled(blank, page.lineart(), [colours_of(reference, lines=True) for reference in references])
    mean = np.broadcast_to(np.mean(references, axis=(0, 1, 2)), found.shape)
    lit = (page.lines > 250) & (page.shading == 255)
    apart = [np.abs(color - page.truth).mean(axis=-1)[lit].mean() for color in (found, mean)]
    assert apart[0] < 0.6 * apart[1]
    assert all(len(np.unique(found[fills(page.lineart()) == n], axis=0)) == 1 for n in range(1, 9))
    assert found[fills(page.lineart()) == fills(page.lineart())[0, 0]].min() > 200  # the gutter


@pytest.mark.parametrize("style", ["gray", "screentone", "lineart"])
def test_what_a_colour_was_looked_up_in_shows_that_colour(chapter, style):
    page, references = chapter
    guide = page.lineart() if style == "lineart" else page.gray()
    palette = [colours_of(reference, lines=style == "lineart") for reference in references]
    blank, right = np.repeat(guide[..., None], 3, axis=2), []
    ys, xs = np.nonzero((page.lines > 250) & (page.regions > 0))
    for pick in np.random.default_rng(0).integers(len(ys), size=12):
        shares = sources(blank, guide, palette, 80.0, style, (int(xs[pick]), int(ys[pick])))
        assert 0 <= sum(float(share.sum()) for share in shares) < 1 + 1e-4
        best = max(range(len(shares)), key=lambda n: float(shares[n].max()))
        row, column = np.unravel_index(shares[best].argmax(), shares[best].shape)
        cell = [
            (edge * side // count, (edge + 1) * side // count)
            for edge, side, count in zip((row, column), (576, 384), shares[best].shape, strict=True)
        ]
        there = references[best][slice(*cell[0]), slice(*cell[1])].astype(int)
        right.append(np.abs(there - page.truth[ys[pick], xs[pick]]).max(axis=-1).min() < 60)
    assert sum(right) >= 8


def test_within_a_fill_there_are_no_steps_from_cell_to_cell():
    rng = np.random.default_rng(0)
    palette = [colours_of(rng.choice(np.uint8([RED, GREEN, BLUE]), (96, 96))) for _ in range(3)]
    level = gray(flat(RED, 180))
    painted = np.float32(flat(RED, 180)) * 0.5 + level[..., None] * 0.5
    painted[:, 90:] += np.linspace(0, 20, 90, dtype=np.float32)[:, None] * (1, -0.5088, 0)  # at one luminance
    found = steered(painted, level, palette, NOISE)
    assert np.abs(np.diff(found, axis=1)).max() < 4


def test_what_is_kept_of_a_picture_is_small_and_the_most_of_it(chapter):
    kept = colours_of(np.random.default_rng(0).integers(0, 256, (1700, 2400, 3), np.uint8))
    assert len(kept.level) == len(kept.color) == len(kept.share) == len(kept.features) == 6000
    assert sum(part.nbytes for part in vars(kept).values() if isinstance(part, np.ndarray)) < 1_000_000
    assert (np.diff(kept.level) >= 0).all()
    np.testing.assert_allclose(luminance(kept.color), kept.level, atol=0.51)
    assert colours_of(flat(RED, 400)).share.sum() == pytest.approx(1)
    assert colours_of(chapter[1][0]).share.sum() > 0.97


def test_where_references_show_no_fill_line_art_stays_as_painted():
    painted, page = flat((10, 120, 200), 64), np.full((64, 64), 255, np.uint8)
    palette = [colours_of(np.zeros((64, 64, 3), np.uint8), lines=True)]
    assert len(palette[0].level) == 0
    np.testing.assert_array_equal(filled(painted, page, palette), painted)
