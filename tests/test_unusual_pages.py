"""Pages that the model was not made for: scans, photographs, tiny panels, strips. On every pack that is bundled."""

import io
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import skimage.data
from PIL import Image

from colorflow_rt import ColorizeOptions, Colorizer
from colorflow_rt.canvas import choose_size, windows
from colorflow_rt.comics import DEMO_SEED, chapter_seed, make_chapter
from colorflow_rt.pack import installed_packs
from colorflow_rt.pixels import luminance, read_picture

PACKS = ["fake", *sorted({"mini"} & installed_packs().keys())]
SCANS = [("scan", "gray"), ("scan", "screentone")]
PHOTOGRAPHS = [("photograph", name) for name in ("astronaut", "chelsea", "coffee", "rocket")]  # in scikit-image's wheel
TINY = [("tiny", size) for size in ((16, 16), (16, 200), (200, 16), (40, 30))]
STRIPS = [("strip", size) for size in ((400, 2400), (1600, 300))]
STEPS = 4

on_every_pack = pytest.mark.parametrize("pack", PACKS)
everything = pytest.mark.parametrize(("kind", "which"), [*SCANS, *PHOTOGRAPHS, *TINY, *STRIPS])


@cache
def colorizer(pack):
    return Colorizer(pack)


@cache
def comic():
    return make_chapter(chapter_seed(DEMO_SEED, 5))


@cache
def references():
    return [(f"reference{number}", comic().reference(number, (256, 384))) for number in range(6)]


@cache
def scanned():
    return comic().page(0, (1700, 2400))


@cache
def given(kind, which):
    """A page without colours: the bytes of a JPEG file, or u8[H,W]."""
    if kind == "scan":
        return jpeg(scanned().gray() if which == "gray" else scanned().screentone(seed=3))
    if kind == "photograph":
        return gray(photograph(which))
    if kind == "strip":
        return comic().page(1, which).gray()
    panel = Image.fromarray(comic().page(1, (400, 600)).gray())
    return np.asarray(panel.resize(which, Image.Resampling.BOX))


def jpeg(grays):
    file = io.BytesIO()
    Image.fromarray(grays).save(file, "JPEG", quality=60)
    return file.getvalue()


def photograph(name):
    return getattr(skimage.data, name)()


def gray(rgb):
    return np.asarray(Image.fromarray(rgb).convert("L"))


@cache
def colored(pack, kind, which, mode="page"):
    """The result; a photograph has its own colours as its reference, the rest has those of the comic."""
    known = [(which, photograph(which))] if kind == "photograph" else references()
    style = "auto" if kind in ("scan", "photograph") else "gray"  # tiny panels have too few pixels to tell
    options = ColorizeOptions(steps=STEPS, style=style, luminance=mode)
    return colorizer(pack).colorize(given(kind, which), known, options)


def chroma(image):
    """f32[H,W,3]: colours less their own gray."""
    return image.astype(np.float32) - luminance(image)[..., None]


@on_every_pack
@everything
def test_it_is_coloured_at_its_own_size_with_its_own_luminance(pack, kind, which):
    result, page = colored(pack, kind, which), read_picture(given(kind, which)).rgb
    assert result.image.dtype == np.uint8
    assert result.image.shape == result.model_image.shape == page.shape
    assert not result.passed_through
    assert np.abs(chroma(result.model_image)).mean() > 1.0
    assert np.abs(chroma(result.image)).mean() > 0.5  # black dots on white have little room for colour
    assert np.abs(luminance(result.image) - luminance(page)).max() < 1.0
    assert result.matches and all(np.isfinite(match.similarity) for match in result.matches)


@on_every_pack
@pytest.mark.parametrize(("kind", "style"), SCANS)
def test_the_style_of_a_scan_is_seen_through_jpeg(pack, kind, style):
    assert colored(pack, kind, style).style == style


@on_every_pack
def test_lines_of_a_screentone_scan_stay_and_its_dots_go(pack):
    page = read_picture(given("scan", "screentone")).rgb
    image = colored(pack, "scan", "screentone", "lines").image
    assert image.shape == page.shape
    ink = scanned().lines < 64
    assert luminance(image)[ink].mean() < 64
    dots = (scanned().lines > 250) & (scanned().gray() > 100) & (scanned().gray() < 160)
    assert luminance(image)[dots].std() < 0.6 * luminance(page)[dots].std()


@on_every_pack
@pytest.mark.parametrize(("kind", "name"), PHOTOGRAPHS)
def test_a_photograph_takes_the_hue_of_its_reference(pack, kind, name):
    """In the mean over the picture: within 60 degrees of the truth's."""
    truth, found = (chroma(image).mean((0, 1)) for image in (photograph(name), colored(pack, kind, name).image))
    assert truth @ found > 0.5 * np.linalg.norm(truth) * np.linalg.norm(found)


def seams(image, page, boxes):
    """The borders of windows (rows, or columns of a lying strip) where colours change more than anywhere near.

    Only where the page u8[H,W] has no edge of its own: there colours may change as they like.
    """
    lying = boxes[1][0] > 0
    tint, drawn = (each.swapaxes(0, 1) if lying else each for each in (chroma(image), page.astype(np.int16)))
    flat = np.abs(np.diff(drawn, axis=0)) < 4
    steps = np.abs(np.diff(tint, axis=0)).mean(axis=2) * flat
    change = steps.sum(axis=1) / np.maximum(flat.sum(axis=1), 1)  # from each row to the next
    ends = {box[end] - 1 for box in boxes for end in ((0, 2) if lying else (1, 3))}
    return [end for end in sorted(ends) if 0 <= end < len(change) and change[end] > 0.5 + _near(change, end)]


def _near(change, place, reach=24):
    return max(*change[max(0, place - reach) : place], *change[place + 1 : place + reach])


@on_every_pack
@pytest.mark.parametrize(("kind", "size"), STRIPS)
def test_a_strip_has_no_seams(pack, kind, size):
    result = colored(pack, kind, size)
    boxes = windows(size, choose_size(size, colorizer(pack).pack.config.pages.sizes))
    assert {match.window for match in result.matches} == set(range(len(boxes)))
    assert len(boxes) > 2
    page = given(kind, size)
    assert seams(result.image, page, boxes) == []
    assert seams(result.model_image, np.zeros_like(page), boxes) == []  # before the page's edges come in


@pytest.mark.parametrize(("kind", "size"), STRIPS)
def test_a_hard_join_of_a_strip_would_be_seen(kind, size):
    image = colored("fake", kind, size).image.astype(np.int16)
    boxes = windows(size, choose_size(size, colorizer("fake").pack.config.pages.sizes))
    assert all(after[0] < before[2] and after[1] < before[3] for before, after in pairwise(boxes))
    left, top = boxes[1][:2]
    image[top:, left:] += np.array([12, -6, 0], np.int16)
    assert seams(image.clip(0, 255).astype(np.uint8), given(kind, size), boxes) == [max(left, top) - 1]
