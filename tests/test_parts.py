"""Features by which parts of a drawing are found again, and closed fills."""

import numpy as np
import pytest

from colorflow_rt.comics import BENCHMARK_SEED, chapter_seed, make_chapter
from colorflow_rt.linework import fills, line_layer
from colorflow_rt.parts import FEATURES, PIXELS, parts_of

SIZE = (256, 384)


@pytest.fixture(scope="module")
def chapter():
    return make_chapter(chapter_seed(BENCHMARK_SEED, 5))


def middles(picture):
    """Region ids of the middle pixels of places, and whether a line lies there."""
    spots = (slice(2, None, 4), slice(2, None, 4))
    return picture.regions[spots].ravel(), (picture.lines[spots] >= 200).ravel()


def found_again(page, references, drawing):
    """Of the places of a page whose part is in a reference, the share whose likeliest place shows that part."""
    parts = [parts_of(drawing(picture), lines=drawing is not gray) for picture in (page, *references)]
    ids, clear = zip(*(middles(picture) for picture in (page, *references)), strict=True)
    known = np.concatenate([part.features.reshape(-1, FEATURES) for part in parts[1:]])
    known_ids, known_clear = np.concatenate(ids[1:]), np.concatenate(clear[1:])
    asked = clear[0] & (ids[0] > 0) & np.isin(ids[0], known_ids[known_clear])
    alike = parts[0].features.reshape(-1, FEATURES)[asked] @ known[known_clear].T
    if drawing is gray:  # among places of the same gray, as colours are looked up
        grays = [gray(picture)[2::4, 2::4].ravel().astype(np.int32) for picture in (page, *references)]
        apart = np.abs(grays[0][asked][:, None] - np.concatenate(grays[1:])[known_clear])
        alike = np.where(apart < 3, alike, -100)
    return float((known_ids[known_clear][alike.argmax(axis=1)] == ids[0][asked]).mean())


def gray(picture):
    return picture.gray()


def lines(picture):
    return picture.lines


@pytest.mark.parametrize(("drawing", "least"), [(gray, 0.9), (lines, 0.6)])
def test_parts_are_found_again_in_references(chapter, drawing, least):
    references = [chapter.reference_page(i, SIZE) for i in range(6)]
    shares = [found_again(chapter.page(i, SIZE), references, drawing) for i in range(3)]
    assert np.mean(shares) > least


def test_lines_of_a_reference_are_seen_as_those_of_a_page(chapter):
    page = chapter.page(0, SIZE)
    drawn, reduced = (parts_of(levels, lines=True).features for levels in (page.lines, page.gray()))
    own = np.sum(drawn * drawn, axis=-1)
    assert np.mean(np.sum(drawn * reduced, axis=-1) / own) > 0.8


def test_paper_is_known(chapter):
    pages = [chapter.page(i, SIZE) for i in range(3)]
    for page in pages:
        ids, clear = middles(page)
        paper = parts_of(page.lines, lines=True).paper.ravel() > 0
        assert paper[clear & (ids == 0)].mean() > 0.8
        assert paper[clear & (ids > 0)].mean() < 0.1


@pytest.mark.parametrize("shape", [(1, 1), (16, 23), (64, 900), (3000, 20), (1024, 1600)])
def test_any_shape(shape):
    parts = parts_of(np.full(shape, 255, np.uint8), lines=True)
    rows, columns = parts.paper.shape
    assert parts.features.shape == (rows, columns, FEATURES) and np.isfinite(parts.features).all()
    assert PIXELS / 16 / 2 < rows * columns < 8 * PIXELS / 16 * 1.5
    places = parts.places(shape)
    assert places.shape == shape and places.min() >= 0 and places.max() < rows * columns
    assert (np.diff(places, axis=0) >= 0).all() and (np.diff(places, axis=1) >= 0).all()


def test_a_fill_is_what_lines_enclose():
    layer = np.full((40, 60), 255, np.uint8)
    layer[:, 30:32] = 0
    layer[10:20, 5] = layer[10:20, 15] = layer[10, 5:16] = layer[19, 5:16] = 40
    found = fills(layer)
    inside, left, right = found[15, 10], found[30, 10], found[30, 50]
    assert len({inside, left, right}) == 3 and set(np.unique(found)) == {inside, left, right}
    assert (found[11:19, 6:15] == inside).all() and (found[:, :30] != right).all() and (found[:, 32:] == right).all()
    assert np.array_equal(found, fills(line_layer(layer)))
    assert len(np.unique(fills(np.zeros((5, 5), np.uint8)))) == 1
