"""Screentone: dots whose area follows darkness, at the pitch and angle asked for."""

import numpy as np
import pytest
from scipy import ndimage

from colorflow_rt.errors import OptionError
from colorflow_rt.screentone import blend, screentone


def _flat(gray: int, side: int = 120) -> np.ndarray:
    return np.full((side, side), gray, np.uint8)


@pytest.mark.parametrize("gray", [20, 64, 128, 190, 240])
@pytest.mark.parametrize(("pitch", "angle"), [(4.0, 45.0), (6.5, 15.0), (9.0, 0.0)])
def test_mean_of_the_dots_is_the_gray(gray: int, pitch: float, angle: float) -> None:
    tone = screentone(_flat(gray), pitch=pitch, angle=angle)
    assert tone.dtype == np.uint8 and tone.shape == (120, 120)
    assert abs(float(tone.mean()) - gray) < 5


def test_black_stays_black_and_white_stays_white() -> None:
    assert screentone(_flat(0), pitch=6, angle=30).max() == 0
    assert screentone(_flat(255), pitch=6, angle=30).min() == 255


@pytest.mark.parametrize("angle", [0.0, 30.0, 45.0])
def test_one_dot_per_pitch_squared(angle: float) -> None:
    tone = screentone(_flat(200, 240), pitch=8, angle=angle)
    _, dots = ndimage.label(tone < 128)
    assert dots == pytest.approx(240 * 240 / 64, rel=0.08)


@pytest.mark.parametrize("angle", [0.0, 15.0, 40.0])
def test_rows_run_at_the_angle(angle: float) -> None:
    tone = screentone(_flat(200, 256), pitch=8, angle=angle)
    spectrum = np.abs(np.fft.fft2(tone - tone.mean()))[:40, :40]
    spectrum[np.hypot(*np.indices(spectrum.shape)) > 40] = 0  # the basic waves, not their diagonal ones
    y, x = np.unravel_index(int(spectrum.argmax()), spectrum.shape)
    assert np.hypot(x, y) == pytest.approx(256 / 8, abs=1.5)
    assert np.degrees(np.arctan2(y, x)) % 90 == pytest.approx(angle, abs=3)


def test_levels_round_the_grays() -> None:
    exact, near = (screentone(_flat(g), pitch=6, angle=45, levels=6) for g in (102, 110))  # 2 / 5 and close to it
    np.testing.assert_array_equal(exact, near)
    assert not np.array_equal(exact, screentone(_flat(110), pitch=6, angle=45))


def test_follows_the_picture() -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8), (64, 1))
    smooth = ndimage.gaussian_filter(screentone(ramp, pitch=5, angle=45).astype(np.float64), 6)
    assert np.abs(smooth[20:44, 20:236] - ramp[20:44, 20:236]).mean() < 5


def test_blend_is_linear() -> None:
    gray, tone = np.array([[100, 7]], np.uint8), np.array([[0, 255]], np.uint8)
    np.testing.assert_array_equal(blend(gray, tone, 0), gray)
    np.testing.assert_array_equal(blend(gray, tone, 1), tone)
    np.testing.assert_array_equal(blend(gray, tone, 0.25), [[75, 69]])


def test_refuses_what_cannot_be_drawn() -> None:
    with pytest.raises(OptionError, match="at least 2 pixels"):
        screentone(_flat(9), pitch=1.5, angle=0)
    with pytest.raises(OptionError, match="at least 2 levels"):
        screentone(_flat(9), pitch=4, angle=0, levels=1)
    with pytest.raises(OptionError, match="expected 0"):
        blend(_flat(1), _flat(2), 1.5)
