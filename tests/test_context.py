"""Context images and the rule that tells gray, screentone and line art apart."""

import io

import numpy as np
import pytest
from PIL import Image
from skimage import data

from colorflow_rt.comics import BENCHMARK_SEED, Page, chapter_seed, make_chapter
from colorflow_rt.context import MODES, STYLES, context_image, detect_style
from colorflow_rt.errors import OptionError
from colorflow_rt.pixels import luminance
from colorflow_rt.screentone import screentone

SIZES = ((256, 384), (512, 768), (640, 640), (900, 500))


def rgb(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[..., None], 3, axis=2)


def jpeg(gray: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(gray).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def scaled(gray: np.ndarray, factor: float) -> np.ndarray:
    image = Image.fromarray(gray)
    return np.asarray(image.resize((round(image.width * factor), round(image.height * factor))))


SCANS = {
    "as drawn": lambda gray: gray,
    "jpeg": lambda gray: jpeg(gray, 40),
    "smaller": lambda gray: scaled(gray, 0.75),
    "larger": lambda gray: scaled(gray, 1.5),
    "gray paper": lambda gray: (30 + gray * 0.75).astype(np.uint8),
    "grainy": lambda gray: (gray + np.random.default_rng(0).normal(0, 6, gray.shape)).clip(0, 255).astype(np.uint8),
}


@pytest.fixture(scope="module")
def pages() -> list[Page]:
    """Of other chapters than those that the rule was calibrated on."""
    chapters = [make_chapter(chapter_seed(BENCHMARK_SEED, 900 + index)) for index in range(len(SIZES))]
    return [chapter.page(index, SIZES[index]) for index, chapter in enumerate(chapters)]


@pytest.mark.parametrize("scan", SCANS)
def test_styles_of_generated_pages(pages: list[Page], scan: str) -> None:
    wrong = []
    for index, page in enumerate(pages):
        styles = {"gray": page.gray(), "screentone": page.screentone(index), "lineart": page.lineart()}
        for style, gray in styles.items():
            if (found := detect_style(rgb(SCANS[scan](gray)))) != style:
                wrong.append(f"{SIZES[index]}: {style} taken for {found}")
    assert not wrong


def test_shaded_line_art_is_line_art_and_a_half_blend_is_screentone(pages: list[Page]) -> None:
    for index, page in enumerate(pages):
        assert detect_style(rgb(page.lineart(shaded=True))) == "lineart"
        assert detect_style(rgb(page.screentone(index, blend=0.6))) == "screentone"


@pytest.mark.parametrize("scan", ["as drawn", "jpeg"])
@pytest.mark.parametrize("pitch", [3.2, 5.0, 8.0])
def test_line_art_toned_in_parts_is_screentone(pages: list[Page], pitch: float, scan: str) -> None:
    page = pages[1]
    toned = np.zeros(page.lines.shape, bool)
    toned[:300] = True
    tone = screentone((page.gray() * 0.6 + 90).astype(np.uint8), pitch=pitch, angle=45.0)
    gray = np.where(toned & (page.regions > 0), np.minimum(tone, page.lines), page.lines)
    assert detect_style(rgb(SCANS[scan](gray))) == "screentone"


def test_hatching_is_line_art() -> None:
    y, x = np.mgrid[:400, :300]
    hatched = np.where(((x + y) % 6 < 2) & (x > 100), 0, 255).astype(np.uint8)
    assert detect_style(rgb(hatched)) == "lineart"


@pytest.mark.parametrize("name", ["camera", "grass", "gravel", "brick", "coins", "moon", "astronaut", "coffee"])
def test_photographs_and_textures_are_gray(name: str) -> None:
    photograph = Image.fromarray(getattr(data, name)()).convert("L")
    assert detect_style(rgb(np.asarray(photograph))) == "gray"


@pytest.mark.parametrize("size", [(16, 16), (16, 400), (33, 70)])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_tiny_and_blank_pages_have_some_style(size: tuple[int, int], level: int) -> None:
    assert detect_style(np.full((*size, 3), level, np.uint8)) in STYLES


def test_page_context_is_rec601_gray() -> None:
    page = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    context = context_image(page)
    assert context.shape == page.shape
    assert context.dtype == np.uint8
    assert (context == context[..., :1]).all()
    assert np.abs(context[..., 0] - luminance(page)).max() <= 0.5


def test_blend_context_is_half_gray_half_dots() -> None:
    gray = np.tile(np.linspace(0, 255, 512).astype(np.uint8), (128, 1))
    context = context_image(rgb(gray), "blend")
    assert (context == context[..., :1]).all()
    blended = context[..., 1].astype(int)
    dots = 2 * blended - gray
    assert ((dots <= 2) | (dots >= 253)).mean() > 0.4  # much of it is fully black or fully white dot
    assert np.abs(blended[:, 128:384].mean() - gray[:, 128:384].mean()) < 4  # as dark as the page
    assert (blended[:, -1] == 255).all()


def test_unknown_context_names_the_choices() -> None:
    assert MODES == ("page", "blend")
    with pytest.raises(OptionError, match="context is 'lines', expected one of page, blend"):
        context_image(np.zeros((32, 32, 3), np.uint8), "lines")  # type: ignore[arg-type]
