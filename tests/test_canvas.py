"""Fitting, patches, canvases (golden, to the pixel) and strips."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from colorflow_rt.canvas import (
    CELLS,
    assemble,
    centre,
    choose_size,
    fit_page,
    join,
    query_patches,
    reference_patches,
    tile,
    unfit,
    windows,
)
from colorflow_rt.errors import OptionError
from colorflow_rt.pixels import read_picture, resize

GOLDEN = Path(__file__).parent / "golden"
rng = np.random.default_rng(2)
sides = st.integers(16, 400)
page_sizes = st.tuples(sides, sides)


def noise(width: int, height: int) -> np.ndarray:
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 250 // width, y * 250 // height, 0 * x + 90], axis=-1).astype(np.uint8)


def golden(folder: str, name: str) -> np.ndarray:
    return read_picture(GOLDEN / folder / name).rgb


@pytest.mark.parametrize("folder", ["retrieval_portrait", "retrieval_square", "retrieval_odd"])
def test_golden_canvases_match_to_the_pixel(folder: str) -> None:
    expected = json.loads((GOLDEN / folder / "expected.json").read_text())
    size = expected["page_width"], expected["page_height"]
    query, _ = fit_page(golden(folder, "query.png"), size, "crop")
    assert np.array_equal(query, golden(folder, "query_fitted.png"))
    for index, patch in enumerate(query_patches(query)):
        assert np.array_equal(patch, golden(folder, f"query_patch{index}.png"))
    count = expected["n_reference_patches"] // 5
    references = [fit_page(golden(folder, f"ref{index}.png"), size, "crop")[0] for index in range(count)]
    patches = [patch for reference in references for patch in reference_patches(reference)]
    tiles = [tile(patches[index], size) for ranks in expected["top3"] for index in ranks]
    canvas = assemble(query, tiles)
    assert np.array_equal(canvas, golden(folder, "canvas.png"))
    assert np.array_equal(centre(canvas), query)


def test_each_cell_of_the_border_is_used_once_and_touches_its_quadrant() -> None:
    cells = [cell for quadrant in CELLS for cell in quadrant]
    assert len(set(cells)) == 12
    assert not {(1, 1), (1, 2), (2, 1), (2, 2)} & set(cells)
    for index, quadrant in enumerate(CELLS):
        assert {(row // 2, column // 2) for row, column in quadrant} == {(index // 2, index % 2)}


def test_tiles_lie_one_pixel_inside_their_cells() -> None:
    tiles = [np.full((30, 14, 3), index, np.uint8) for index in range(12)]
    canvas = assemble(np.zeros((64, 32, 3), np.uint8), tiles)
    assert canvas.shape == (128, 64, 3)
    assert (canvas[0] == 255).all()
    assert (canvas[33:63, 1:15] == 0).all()  # quadrant 0, rank 1: row 1, column 0
    assert (canvas[97:127, 49:63] == 11).all()  # quadrant 3, rank 3: row 3, column 3
    assert (canvas[:, 15:17][:32] == 255).all()


def test_a_canvas_takes_twelve_tiles() -> None:
    with pytest.raises(OptionError, match="takes 12 tiles, got 3"):
        assemble(noise(32, 32), [noise(14, 14)] * 3)


def test_pad_keeps_the_whole_page_and_centres_it_on_white() -> None:
    page = smooth(100, 400)
    fitted, placement = fit_page(page, (128, 192))
    assert fitted.shape == (192, 128, 3)
    assert placement.box == (40, 0, 88, 192)
    assert np.array_equal(fitted[:, 40:88], resize(page, (48, 192)))
    assert (fitted[:, :40] == 255).all()
    assert (fitted[:, 88:] == 255).all()


@settings(deadline=None)
@given(page_sizes, st.sampled_from([(128, 192), (192, 128), (160, 160)]))
def test_pad_scales_by_one_factor_and_fills_one_side(page_size: tuple[int, int], size: tuple[int, int]) -> None:
    fitted, placement = fit_page(np.zeros((page_size[1], page_size[0], 3), np.uint8), size)
    left, top, right, bottom = placement.box
    width, height = right - left, bottom - top
    assert width == size[0] or height == size[1]
    scale = min(size[0] / page_size[0], size[1] / page_size[1])
    assert abs(width - page_size[0] * scale) <= 0.5
    assert abs(height - page_size[1] * scale) <= 0.5
    assert (fitted == 0).all(axis=2).sum() == width * height  # nothing of the page outside its box, no padding in it


@pytest.mark.parametrize("page_size", [(128, 192), (64, 96), (90, 100), (300, 120), (17, 190)])
def test_unfit_brings_the_page_back(page_size: tuple[int, int]) -> None:
    page = smooth(*page_size)
    fitted, placement = fit_page(page, (128, 192))
    back = unfit(fitted, placement)
    assert back.shape == page.shape
    assert np.abs(back.astype(int) - page).max() <= 8
    if page_size == (128, 192):
        assert np.array_equal(back, page)


@settings(deadline=None)
@given(page_sizes)
def test_unfit_takes_super_resolved_images_and_no_padding(page_size: tuple[int, int]) -> None:
    fitted, placement = fit_page(np.zeros((page_size[1], page_size[0], 3), np.uint8), (128, 192))
    big = np.asarray(Image.fromarray(fitted).resize((192, 288), Image.Resampling.BOX))
    assert (unfit(fitted, placement) == 0).all()  # the white beside the page would show at its edges
    assert (unfit(big, placement) == 0).all()


def test_crop_stretches_a_similar_aspect_and_cuts_another() -> None:
    similar, other = smooth(140, 192), smooth(240, 192)
    assert np.array_equal(fit_page(similar, (128, 192), "crop")[0], resize(similar, (128, 192)))
    fitted, placement = fit_page(other, (128, 192), "crop")
    assert placement.source == (56, 0, 184, 192)
    assert np.array_equal(fitted, other[:, 56:184])


def test_unfit_of_a_cut_page_is_the_page_outside_the_cut() -> None:
    page = smooth(240, 192)
    fitted, placement = fit_page(page, (128, 192), "crop")
    assert np.array_equal(unfit(fitted, placement, outside=page), page)
    back = unfit(fitted, placement)
    assert np.array_equal(back[:, 56:184], page[:, 56:184])
    assert (back[:, :56] == 255).all()


def test_unknown_fit_names_the_choices() -> None:
    with pytest.raises(OptionError, match="fit is 'stretch', expected one of pad, crop"):
        fit_page(noise(32, 32), (32, 32), "stretch")  # type: ignore[arg-type]


def test_choose_size_takes_the_nearest_aspect() -> None:
    sizes = [(128, 192), (192, 128), (160, 160)]
    assert choose_size((800, 1200), sizes) == (128, 192)
    assert choose_size((800, 9000), sizes) == (128, 192)
    assert choose_size((1200, 800), sizes) == (192, 128)
    assert choose_size((500, 520), sizes) == (160, 160)
    assert choose_size((500, 500), [(64, 128), (128, 64)]) == (64, 128)  # equally far: the first


def test_patches_cover_the_page_also_when_it_does_not_divide_by_four() -> None:
    page = np.arange(37 * 50 * 3, dtype=np.int64).reshape(37, 50, 3).astype(np.uint8)
    patches = query_patches(page)
    assert {patch.shape for patch in patches} == {(27, 37, 3)}
    assert np.array_equal(patches[3][-1, -1], page[-1, -1])
    assert len(reference_patches(page)) == 5


# Strips


def test_only_pages_longer_than_one_to_three_go_in_windows() -> None:
    assert windows((100, 300), (128, 192)) == [(0, 0, 100, 300)]
    assert windows((100, 301), (128, 192), 0.25) == [(0, 0, 100, 150), (0, 76, 100, 226), (0, 151, 100, 301)]
    assert windows((600, 100), (192, 128), 0.0) == [(left, 0, left + 150, 100) for left in (0, 150, 300, 450)]


@settings(deadline=None)
@given(st.integers(16, 60), st.integers(49, 900), st.floats(0, 0.5), st.booleans())
def test_windows_cover_a_strip_and_overlap(short: int, long: int, overlap: float, tall: bool) -> None:
    page_size = (short, long) if tall else (long, short)
    boxes = windows(page_size, (128, 192) if tall else (192, 128), overlap)
    spans = [(box[1], box[3]) if tall else (box[0], box[2]) for box in boxes]
    assert spans[0][0] == 0
    assert spans[-1][1] == long
    assert len({end - start for start, end in spans}) == 1
    length = spans[0][1]
    for (start, end), (following, _) in pairwise(spans):
        assert start < following
        assert end - following >= int(overlap * length)


@pytest.mark.parametrize("overlap", [-0.1, 0.6])
def test_overlap_out_of_range(overlap: float) -> None:
    with pytest.raises(OptionError, match=r"expected 0 to 0\.5"):
        windows((20, 200), (128, 192), overlap)


@settings(deadline=None)
@given(st.integers(16, 40), st.integers(121, 400), st.floats(0, 0.5), st.booleans(), st.booleans())
def test_joining_windows_of_an_image_gives_it_back(
    short: int, long: int, overlap: float, tall: bool, floats: bool
) -> None:
    page = noise(short, long) if tall else noise(long, short)
    values = page.astype(np.float32) / 7 if floats else page
    page_size = page.shape[1], page.shape[0]
    boxes = windows(page_size, (128, 192) if tall else (192, 128), overlap)
    parts = [values[top:bottom, left:right] for left, top, right, bottom in boxes]
    joined = join(parts, boxes, page_size)
    assert joined.dtype == values.dtype
    assert np.array_equal(joined, values)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_windows_that_differ_fade_into_each_other(dtype: type) -> None:
    boxes = windows((20, 400), (128, 192), 0.4)
    levels = [40 + 60 * (index % 2) for index in range(len(boxes))]
    parts = [np.full((box[3] - box[1], 20, 3), level, dtype) for level, box in zip(levels, boxes, strict=True)]
    joined = join(parts, boxes, (20, 400))[:, 7, 1].astype(float)
    least_overlap = min(first[3] - second[1] for first, second in pairwise(boxes))
    assert np.abs(np.diff(joined)).max() <= 60 / (least_overlap + 1) + (1 if dtype is np.uint8 else 1e-3)
    assert joined[0] == 40
    assert joined.max() > 95


def test_join_wants_a_part_for_each_window() -> None:
    with pytest.raises(OptionError, match="1 parts for 2 windows"):
        join([noise(20, 30)], [(0, 0, 20, 30), (0, 20, 20, 50)], (20, 50))
