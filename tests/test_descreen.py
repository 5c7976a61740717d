import numpy as np
import pytest

from colorflow_rt import descreen
from colorflow_rt.comics import BENCHMARK_SEED, chapter_seed, make_chapter
from colorflow_rt.engine.fake import fake_config
from colorflow_rt.metrics import psnr
from colorflow_rt.pack_config import PackConfig


@pytest.fixture(scope="module")
def page():
    return make_chapter(chapter_seed(BENCHMARK_SEED, 3)).page(1, (512, 768))


def rgb(gray):
    return np.repeat(gray[..., None], 3, axis=2)


def test_dots_become_the_gray_they_stand_for(page):
    toned, gray = page.screentone(seed=7), page.gray()
    found = descreen.without_dots(rgb(toned))
    assert found.shape == (768, 512, 3) and found.dtype == np.uint8
    assert np.array_equal(found[..., 0], found[..., 2])
    assert psnr(rgb(gray), rgb(toned)) < 10
    assert psnr(rgb(gray), found) > 21
    lines = page.lines < 64
    assert (found[lines][:, 0] < 128).mean() > 0.97  # some lines are as thin as the dots


def test_a_page_without_dots_is_hardly_changed(page):
    assert psnr(rgb(page.gray()), descreen.without_dots(rgb(page.gray()))) > 28


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (16, 23), (101, 64)])
def test_any_size(size):
    assert descreen.without_dots(np.full((*size, 3), 255, np.uint8)).shape == (*size, 3)


def test_bands_leave_no_seam(page, monkeypatch):
    toned = rgb(page.screentone(seed=1))
    whole = descreen.without_dots(toned)
    monkeypatch.setattr(descreen, "BAND", 512 * 200)
    assert np.abs(descreen.without_dots(toned).astype(int) - whole).max() <= 1


def test_a_pack_says_whether_screentone_goes():
    text = fake_config().to_toml()
    assert PackConfig.from_toml(text).pages.screentone == "kept"
    text = text.replace('screentone = "kept"', 'screentone = "removed"')
    assert PackConfig.from_toml(text).pages.screentone == "removed"
