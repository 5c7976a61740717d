"""The page's lines and luminance come back as drawn; the colours are the model's."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.metrics import structural_similarity

from colorflow_rt.engine import TensorSpec, check_feeds
from colorflow_rt.errors import OptionError
from colorflow_rt.guided import guided_resize
from colorflow_rt.linework import line_layer
from colorflow_rt.pixels import luminance, resize
from colorflow_rt.screentone import blend, screentone
from colorflow_rt.upscale import chroma_layer, drawn_page, merge, super_resolve

SIDE = ("B", 3, "H", "W")


class Gsrp:
    """An engine that keeps what it was fed and answers the mean of both pictures."""

    inputs = (TensorSpec("color", "float32", SIDE), TensorSpec("bw", "float32", SIDE))
    outputs = (TensorSpec("image", "float32", SIDE),)

    def __call__(self, feeds):
        check_feeds("gsrp", self.inputs, feeds)
        self.feeds = feeds
        return {"image": (feeds["color"] + feeds["bw"]) / 2}


def drawing(width=256, height=384):
    """Fills in levels u8[H,W] and ink u8[H,W]: panels with shapes, outlines of 2 px and small lettering."""
    fill = np.full((height, width), 255, np.uint8)
    ink = Image.new("L", (width * 4, height * 4), 255)
    yy, xx = np.mgrid[0:height, 0:width]
    fill[12:180, 12:244], fill[200:372, 12:244] = 205, 170
    for x, y, radius, level in ((70, 100, 45, 120), (170, 110, 50, 150), (80, 290, 50, 90), (180, 290, 40, 225)):
        fill[(xx - x) ** 2 + (yy - y) ** 2 < radius**2] = level
        ring = np.abs(np.hypot(xx - x, yy - y) - radius) < 1.2
        ink.paste(0, mask=Image.fromarray(ring).resize(ink.size))
    for box in ((12, 12, 244, 180), (12, 200, 244, 372)):
        frame = Image.new("L", (box[2] - box[0], box[3] - box[1]), 0)
        edge = np.asarray(frame).copy()
        edge[:2], edge[-2:], edge[:, :2], edge[:, -2:] = 255, 255, 255, 255
        ink.paste(0, (box[0] * 4, box[1] * 4), Image.fromarray(edge).resize((edge.shape[1] * 4, edge.shape[0] * 4)))
    return fill, np.asarray(ink.resize((width, height), Image.Resampling.BOX))


def gray_to_rgb(gray):
    return np.repeat(gray[..., None], 3, axis=2)


def random_colors(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


def test_super_resolve_feeds_the_pillow_bicubic_picture_and_the_guide():
    engine, color, guide = Gsrp(), random_colors((32, 48)), random_colors((48, 72), 1)
    found = super_resolve(engine, color, guide, multiple=8)
    upsampled = np.asarray(Image.fromarray(color).resize((72, 48), Image.Resampling.BICUBIC))
    fed = engine.feeds["color"]
    assert fed.shape == (1, 3, 48, 72)
    np.testing.assert_allclose(fed[0].transpose(1, 2, 0) * 127.5 + 127.5, upsampled, atol=1e-3)
    assert np.abs(found.astype(int) - (upsampled.astype(int) + guide) / 2).max() <= 0.5001


def test_super_resolve_continues_odd_sides_and_cuts_them_again():
    engine, color, guide = Gsrp(), random_colors((20, 30)), random_colors((31, 45), 1)
    found = super_resolve(engine, color, guide, multiple=8)
    assert found.shape == guide.shape
    bw = engine.feeds["bw"]
    assert bw.shape == (1, 3, 32, 48)
    np.testing.assert_array_equal(bw[..., 45:], np.repeat(bw[..., 44:45], 3, axis=-1))


@pytest.mark.parametrize("saturation", [0.0, 0.5, 1.0, 2.0])
def test_luminance_of_the_page_is_kept_under_extreme_colours(saturation):
    levels = np.tile(np.arange(256, dtype=np.uint8), (160, 1))
    corners = np.array([[r, g, b] for r in (0, 255) for g in (0, 255) for b in (0, 255)], np.uint8)
    color = np.repeat(corners, 10, axis=0)[:, None].repeat(128, axis=1)
    page = gray_to_rgb(levels)
    found = merge(page, color, "page", saturation)
    assert np.abs(luminance(found) - luminance(page)).max() <= 0.501
    assert (found[:, 0] == 0).all() and (found[:, 255] == 255).all()  # ink and paper stay neutral
    assert (np.ptp(found, axis=2).max() > 200) == (saturation > 0.5)


def test_luminance_of_a_random_page_is_kept_and_its_lines_are_the_same():
    page = random_colors((128, 160), 5)
    found = merge(page, random_colors((48, 64), 6), "page")
    assert np.abs(luminance(found) - luminance(page)).max() <= 0.501
    ssim = structural_similarity(luminance(found), luminance(page), data_range=255)
    assert ssim > 0.9999


def test_true_colours_come_back():
    colors = np.zeros((96, 96, 3), np.uint8)
    colors[:, :48], colors[:, 48:] = (200, 80, 60), (40, 120, 220)
    page = gray_to_rgb(np.rint(luminance(colors)).astype(np.uint8))
    found = merge(page, resize(colors, (32, 32)), "page")
    assert np.abs(found.astype(int) - colors)[:, [0, 20, 40, 56, 75, 95]].max() <= 3


def test_colours_stop_at_a_line_of_the_page():
    page = np.full((90, 90), 255, np.uint8)
    page[:, 44:47] = 0
    colors = np.zeros((90, 90, 3), np.uint8)
    colors[:, :45], colors[:, 45:] = (230, 60, 60), (60, 60, 230)
    small = resize(colors, (30, 30))
    small[:, 14:16] //= 3  # as a model paints it: the line blurred into both sides
    plain = resize(small, (90, 90)).astype(int)
    found = guided_resize(small, page).astype(int)
    beside = [41, 42, 43, 47, 48, 49]
    error = np.abs(found - colors)[:, beside].max(axis=(0, 2))
    assert error.max() < 12 and error.max() < np.abs(plain - colors)[:, beside].max() / 5


def test_colours_without_a_line_between_them_are_not_smeared():
    colors = np.zeros((96, 96, 3), np.uint8)
    colors[:, :48], colors[:, 48:] = (230, 60, 60), (60, 60, 230)
    small, blank = resize(colors, (32, 32)), np.full((96, 96), 255, np.uint8)
    found = guided_resize(small, blank).astype(int)
    assert np.abs(found - resize(small, (96, 96))).max() <= 3


def test_saturation_scales_chroma():
    page, color = np.full((32, 32, 3), 128, np.uint8), np.full((16, 16, 3), (150, 120, 100), np.uint8)
    half, full, none = (merge(page, color, "page", factor).astype(int) - 128 for factor in (0.5, 1.0, 0.0))
    assert np.abs(half * 2 - full).max() <= 1 and np.abs(full).max() > 15 and not none.any()
    model = merge(page, color, "model", 0.0)
    assert np.ptp(model, axis=2).max() == 0


def test_line_art_over_the_models_shading():
    _, ink = drawing()
    color = resize(np.full((384, 256, 3), (120, 180, 90), np.uint8), (96, 144))
    found = merge(gray_to_rgb(ink), color, "lines", style="lineart")
    assert (found[ink == 0] == 0).all()
    np.testing.assert_array_equal(found[ndimage.minimum_filter(ink, 5) == 255][0], (120, 180, 90))
    darkest = luminance(found)
    assert (darkest[ink < 64] < 64).all()


def test_lines_drop_the_pages_grays_and_keep_its_black():
    fill, ink = drawing()
    fill[20:60, 20:60] = 0  # a black area, wider than any line
    page = np.minimum(fill, ink)
    layer = line_layer(page)
    flat = (ndimage.minimum_filter(ink, 9) == 255) & (
        ndimage.maximum_filter(fill, 9) == ndimage.minimum_filter(fill, 9)
    )
    assert (layer[flat & (fill > 100)] >= 254).all()
    assert (layer[page == 0] == 0).all()


@pytest.mark.parametrize(("pitch", "angle", "amount"), [(4.0, 45, 1.0), (5.0, 30, 1.0), (4.5, 15, 0.5), (6.0, 0, 0.7)])
def test_screentone_goes_and_lines_stay(pitch, angle, amount):
    fill, ink = drawing(512, 768)
    fill[400:740, 20:490] = 190
    page = blend(np.minimum(fill, ink), np.minimum(screentone(fill, pitch=pitch, angle=angle), ink), amount)
    lines, paper = ink < 64, ndimage.minimum_filter(ink, 5) == 255
    before, after = line_layer(page), line_layer(drawn_page(gray_to_rgb(page), "screentone")[..., 0])
    assert (before[paper] < 190).mean() > 0.15
    assert (after[paper] < 190).mean() < 0.15 * (before[paper] < 190).mean()
    assert (after[lines] < 128).mean() > 0.97


def test_lettering_and_hatching_are_not_taken_for_screentone():
    page = Image.new("L", (512, 512), 255)
    ink = np.asarray(page).copy()
    rng = np.random.default_rng(3)
    for y in range(20, 240, 14):  # rows of letters of 5 to 9 px, as in a small font
        for x in range(20, 490, 9):
            glyph = rng.random((3, 2)).repeat(3, axis=0).repeat(3, axis=1) < 0.6
            ink[y : y + 9, x : x + 6][glyph] = 0
    yy, xx = np.mgrid[0:512, 0:512]
    ink[(yy > 280) & ((xx + yy) % 6 < 2)] = 0
    layer = line_layer(drawn_page(gray_to_rgb(ink), "screentone")[..., 0])
    assert (layer[ink == 0] < 64).mean() > 0.98


def test_model_luminance_is_the_resized_picture():
    page, color = random_colors((40, 60)), random_colors((20, 30), 2)
    expected = np.asarray(Image.fromarray(color).resize((60, 40), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(merge(page, color, "model"), expected)


def test_auto_depends_on_style():
    page, color = gray_to_rgb(np.minimum(*drawing())), random_colors((96, 64), 2)
    drawn = drawn_page(page, "screentone")
    for style, explicit in (
        ("gray", merge(page, color, "page")),
        ("screentone", merge(drawn, color, "page")),
        ("lineart", merge(page, color, "lines", style="lineart")),
    ):
        np.testing.assert_array_equal(merge(page, color, "auto", style=style), explicit)
    np.testing.assert_array_equal(merge(page, color, style="screentone", drawn=drawn), merge(drawn, color, "page"))
    with pytest.raises(OptionError, match="auto, page, lines, model"):
        merge(page, color, "luma")


def test_the_luminance_of_a_screentone_page_is_its_dots_if_asked_for():
    fill, ink = drawing()
    page = gray_to_rgb(np.minimum(screentone(fill, pitch=4.0, angle=45), ink))
    found = merge(page, random_colors((96, 64), 2), "page", style="screentone")
    assert np.abs(luminance(found) - luminance(page)).max() < 1.0


def test_chroma_layer_has_one_luminance_and_no_lines():
    fill, ink = drawing()
    page, color = gray_to_rgb(np.minimum(fill, ink)), np.full((144, 96, 3), (170, 120, 90), np.uint8)
    layer = chroma_layer(page, color)
    assert np.abs(luminance(layer) - 128).max() <= 0.501
    assert np.ptp(layer.reshape(-1, 3), axis=0).max() == 0


@pytest.mark.parametrize("shape", [(16, 16), (16, 400), (700, 17), (1200, 1000)])
def test_odd_sizes(shape):
    page = gray_to_rgb(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    for style in ("gray", "screentone", "lineart"):
        for luminance_mode in ("page", "lines", "model"):
            assert merge(page, random_colors((48, 36)), luminance_mode, style=style).shape == page.shape
