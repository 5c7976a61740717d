"""Pixels to model and back, and every part of the condition."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from colorflow_rt import latents
from colorflow_rt.errors import OptionError

GOLDEN = Path(__file__).parent / "golden"


def picture(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def test_every_level_survives_the_way_to_the_model_and_back() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=-1)
    model = latents.to_model(levels)
    assert model.shape == (1, 3, 16, 16)
    assert model.dtype == np.float32
    assert (model.min(), model.max()) == (-1.0, 1.0)
    assert model.flags.c_contiguous
    assert np.array_equal(latents.from_model(model), levels)


def test_channels_move_to_the_front_and_back() -> None:
    image = picture(5, 7)
    model = latents.to_model(image)
    assert model.shape == (3, 5, 7)
    np.testing.assert_allclose(model[2, 4, 6], image[4, 6, 2] / 127.5 - 1, rtol=1e-6)
    assert np.array_equal(latents.from_model(model), image)


def test_from_model_rounds_half_to_even_and_clamps() -> None:
    levels = np.array([-700, 0, 0.4, 0.6, 126.4, 127.5, 254.4, 254.6, 255, 256, 9000])
    image = np.broadcast_to((levels / 127.5 - 1).astype(np.float32), (3, 1, len(levels)))
    assert latents.from_model(image)[0, :, 0].tolist() == [0, 0, 0, 1, 126, 128, 254, 255, 255, 255, 255]


@given(
    size=st.tuples(st.integers(4, 40), st.integers(4, 40)),
    factor=st.integers(1, 8),
)
@settings(max_examples=60, deadline=None)
def test_mask_is_torch_s_bilinear_reduction(size: tuple[int, int], factor: int) -> None:
    width, height = size
    full = torch.ones(1, 1, 2 * height, 2 * width)
    full[..., height // 2 : height // 2 + height, width // 2 : width // 2 + width] = 0
    target = (2 * height // factor, 2 * width // factor)
    expected = torch.nn.functional.interpolate(full, target, mode="bilinear", align_corners=False)
    ours = latents.mask(size, factor)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected[0].numpy(), atol=2e-6)


@pytest.mark.parametrize("name", ["sd_small_5ch", "sd_small_9ch"])
def test_mask_and_shape_are_those_of_the_golden_condition(name: str) -> None:
    golden = load_file(GOLDEN / name / "tensors.safetensors")
    height, width = (side // 2 for side in golden["canvas"].shape[:2])
    references = latents.mask((width, height), 8)
    assert np.array_equal(references, golden["cond"][0, 4:5])
    inner = golden["cond"][:, 5:] if name.endswith("9ch") else None
    made = latents.condition(golden["cond"][:, :4], references, inner)
    assert np.array_equal(made, golden["cond"])


def test_condition_order_and_batch() -> None:
    canvas = picture(2, 64, 128)
    canvas_latents, inner = np.full((2, 4, 16, 32), 2, np.float32), np.full((2, 4, 16, 32), 3, np.float32)
    planes = latents.luminance_planes(canvas, 4, 8)
    made = latents.condition(canvas_latents, latents.mask((64, 32), 4), inner, planes)
    assert made.shape == (2, 17, 16, 32)
    assert made.dtype == np.float32
    assert np.all(made[:, :4] == 2)
    assert np.all(made[:, 5:9] == 3)
    assert np.array_equal(made[:, 9:], planes)
    assert np.all(made[:, 4, 4:12, 8:24] == 0)
    assert made[:, 4].sum() == 2 * 16 * 32 * 3 / 4
    plain = latents.condition(canvas_latents, latents.mask((64, 32), 4))
    assert plain.shape == (2, 5, 16, 32)


def test_luminance_planes_follow_the_formula() -> None:
    canvas = picture(12, 8)
    planes = latents.luminance_planes(canvas, 4, 8)
    assert planes.shape == (8, 3, 2)
    assert planes.dtype == np.float32
    cell = canvas[4:8, 4:8].astype(np.float64) @ [0.299, 0.587, 0.114] / 255
    mean, quartile = cell.mean(), np.sort(cell.ravel())[-4]
    expected = [np.sin(np.pi * mean), np.cos(np.pi * mean)]
    for wave in (np.sin, np.cos):
        expected += [wave(2**k * np.pi * quartile) for k in range(3)]
    np.testing.assert_allclose(planes[:, 1, 1], expected, atol=1e-5)


def test_black_and_white_have_the_ends_of_the_planes() -> None:
    canvas = np.zeros((2, 8, 8, 3), np.uint8)
    canvas[1] = 255
    planes = latents.luminance_planes(canvas, 8, 8)[:, :, 0, 0]
    np.testing.assert_allclose(planes, [[0, 1, 0, 0, 0, 1, 1, 1], [0, -1, 0, 0, 0, -1, 1, 1]], atol=1e-5)


def test_a_fill_keeps_its_planes_where_a_line_crosses_it() -> None:
    fill = np.full((4, 4, 3), 180, np.uint8)
    crossed = fill.copy()
    crossed[:, 1:3] = 0
    whole, lined = (latents.luminance_planes(canvas, 4, 16)[:, 0, 0] for canvas in (fill, crossed))
    np.testing.assert_allclose(lined[4:], whole[4:], atol=1e-5)
    assert np.abs(lined[:4] - whole[:4]).max() > 0.5


@pytest.mark.parametrize(("height", "width"), [(64, 32), (32, 96), (9, 7)])
def test_blacked_out_and_inner_only_are_two_halves_of_the_canvas(height: int, width: int) -> None:
    canvas = picture(3, 2 * height, 2 * width) | 1
    outer, inner = latents.blacked_out(canvas), latents.inner_only(canvas)
    assert np.array_equal(outer + inner, canvas)
    top, left = height // 2, width // 2
    assert np.array_equal(
        inner[:, top : top + height, left : left + width], canvas[:, top : top + height, left : left + width]
    )
    assert np.count_nonzero(inner) == 3 * height * width * 3
    assert not np.shares_memory(outer, canvas)


def test_noise_is_the_stated_generator_s_and_stays_so() -> None:
    noise = latents.initial_noise(0, (1, 4, 6, 5))
    assert noise.dtype == np.float32
    assert noise.shape == (1, 4, 6, 5)
    np.testing.assert_allclose(noise.ravel()[:3], [-0.24822916, -0.026767015, -1.9444163], rtol=1e-6)
    assert np.array_equal(noise, latents.initial_noise(0, (1, 4, 6, 5)))
    assert not np.array_equal(noise, latents.initial_noise(1, (1, 4, 6, 5)))
    many = latents.initial_noise(5, (100_000,))
    assert abs(many.mean()) < 0.01
    assert abs(many.std() - 1) < 0.01
    assert latents.initial_noise(2**63, (2,)).shape == (2,)


def test_negative_seed_is_refused() -> None:
    with pytest.raises(OptionError, match="seed is -1, expected 0 or more"):
        latents.initial_noise(-1, (2,))


@pytest.mark.parametrize(
    ("margin", "size", "border"), [(0, (6, 8), 0), (1, (8, 10), 4), (8, (10, 12), 8), (99, (12, 14), 12)]
)
def test_around_the_centre(margin: int, size: tuple[int, int], border: int) -> None:
    """Whole latents, as many as the margin asks for and as there are on every side."""
    canvas = np.arange(3 * 12 * 16, dtype=np.float32).reshape(3, 12, 16)
    found, pixels = latents.around_centre(canvas, margin, 4)
    assert (found.shape, pixels) == ((3, *size), border)
    m = border // 4
    np.testing.assert_array_equal(found[:, m : m + 6, m : m + 8], canvas[:, 3:9, 4:12])
