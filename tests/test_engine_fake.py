"""The fake engines: what each computes, that rows keep apart, and the hooks for server tests."""

import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from colorflow_rt import latents
from colorflow_rt.denoise import denoise
from colorflow_rt.engine import TensorSpec
from colorflow_rt.engine.fake import FakeEngine, fake_config, fake_engines
from colorflow_rt.errors import EngineError
from colorflow_rt.pack_config import GRAPHS, REUSE_GRAPHS, PackConfig
from colorflow_rt.schedule import Schedule

CONFIGS = {
    "plain": fake_config(),
    "inner": fake_config(inner=True, luminance_planes=8),
    "text": fake_config(text=True, prediction_type="v_prediction"),
    "wide": fake_config(latent_channels=16, vae_factor=4),
}
REC601 = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def picture(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def canvas_of(color: tuple[int, int, int], gray: int = 120) -> NDArray[np.uint8]:
    """References of one colour around a gray page of 64 x 32."""
    canvas = np.zeros((64, 128, 3), np.uint8)
    canvas[:] = color
    canvas[16:48, 32:96] = gray
    return canvas


def condition_of(config: PackConfig, canvas: NDArray[np.uint8]) -> NDArray[np.float32]:
    encode, model = fake_engines(config)["vae_encoder"], config.model
    height, width = canvas.shape[0] // 2, canvas.shape[1] // 2
    mask = latents.mask((width, height), model.vae_factor)
    planes = latents.luminance_planes(canvas, model.vae_factor, model.luminance_planes)[np.newaxis]
    if not model.has_inner:
        return latents.condition(encode({"image": latents.to_model(canvas[np.newaxis])})["latents"], mask)
    outer, inner = (
        encode({"image": latents.to_model(image[np.newaxis])})["latents"]
        for image in (latents.blacked_out(canvas), latents.inner_only(canvas))
    )
    return latents.condition(outer, mask, inner, planes)


def colored_centre(
    config: PackConfig, canvas: NDArray[np.uint8], seed: int = 0, steps: int = 4, guidance: float = 1.0
) -> NDArray[np.uint8]:
    engines, condition = fake_engines(config), condition_of(config, canvas)
    shape = (1, config.model.latent_channels, *condition.shape[2:])
    schedule = Schedule.create(steps, config.scheduler_config)
    x0 = denoise(engines.__getitem__, latents.initial_noise(seed, shape), condition, schedule, guidance)
    return latents.from_model(engines["vae_decoder"]({"latents": x0})["image"])[0, 16:48, 32:96]


def random_feeds(engine: FakeEngine, batch: int) -> dict[str, NDArray[Any]]:
    sizes, rng = {"B": batch, "H": 48, "W": 32, "h": 6, "w": 4}, np.random.default_rng(1)

    def tensor(spec: TensorSpec) -> NDArray[Any]:
        shape = [sizes[axis] if isinstance(axis, str) else axis for axis in spec.shape]
        if spec.dtype == "int64":
            return rng.integers(0, 1000, shape)
        return rng.normal(size=shape).astype(np.float32) + np.float32(spec.name == "denoiser") * 5

    return {spec.name: tensor(spec) for spec in engine.inputs}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("graph", [*GRAPHS, *REUSE_GRAPHS])
def test_rows_keep_apart_and_calls_repeat(config: PackConfig, graph: str) -> None:
    engine = fake_engines(config)[graph]
    feeds = random_feeds(engine, 3)
    together, again = engine(feeds), engine(feeds)
    assert list(together) == [spec.name for spec in engine.outputs]
    for i in range(3):
        alone = engine({name: array[i : i + 1] for name, array in feeds.items()})
        for name, array in together.items():
            assert array.dtype == np.float32
            assert np.array_equal(array[i], alone[name][0])
            assert np.array_equal(array, again[name])
    assert engine.batches == [3, 3, 1, 1, 1]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_vae_gives_flat_cells_back(config: PackConfig) -> None:
    engines, f = fake_engines(config), config.model.vae_factor
    flat = picture(2, 4, 3).repeat(f, axis=1).repeat(f, axis=2)
    found = engines["vae_encoder"]({"image": latents.to_model(flat)})["latents"]
    assert found.shape == (2, config.model.latent_channels, 4, 3)
    luminance = latents.to_model(flat)[:, :, ::f, ::f].transpose(0, 2, 3, 1) @ REC601
    np.testing.assert_allclose(found[:, 3], luminance * 0.18215, atol=1e-5)
    assert np.array_equal(latents.from_model(engines["vae_decoder"]({"latents": found})["image"]), flat)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_page_takes_the_references_colour_and_keeps_its_light(config: PackConfig) -> None:
    for color, channel in (((220, 60, 60), 0), ((40, 200, 40), 1), ((30, 60, 230), 2)):
        centre = colored_centre(config, canvas_of(color), steps=10).reshape(-1, 3).astype(float)
        assert np.argmax(centre.mean(axis=0)) == channel
        assert np.ptp(centre.mean(axis=0)) > 100
        assert abs((centre @ REC601).mean() - 120) < 3


def test_gray_references_leave_the_page_gray() -> None:
    centre = colored_centre(CONFIGS["plain"], canvas_of((200, 200, 200)), steps=10).astype(float)
    assert np.abs(centre.mean(axis=(0, 1)) - 120).max() < 1


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_two_parts_of_a_step_are_the_step(config: PackConfig) -> None:
    engines = fake_engines(config)
    feeds = random_feeds(engines["denoise_step"], 2)
    features = engines["guider"]({spec.name: feeds[spec.name] for spec in engines["guider"].inputs})
    rest = {name: array for name, array in feeds.items() if name != "condition"} | features
    for name, array in engines["denoise_step"](feeds).items():
        assert np.array_equal(engines["denoise_reuse"](rest)[name], array)


def test_seed_and_steps_show_in_the_result() -> None:
    config, canvas = CONFIGS["plain"], canvas_of((220, 60, 60))
    first = colored_centre(config, canvas)
    assert np.array_equal(first, colored_centre(config, canvas))
    assert not np.array_equal(first, colored_centre(config, canvas, seed=1))
    assert not np.array_equal(first, colored_centre(config, canvas, steps=5))


def test_the_loop_converges_as_the_timestep_falls() -> None:
    config = CONFIGS["plain"]
    condition = condition_of(config, canvas_of((120, 120, 120)))
    noise, seen = latents.initial_noise(0, (1, 4, 8, 16)), list[float]()
    schedule = Schedule.create(10, config.scheduler_config)
    denoise(
        fake_engines(config).__getitem__,
        noise,
        condition,
        schedule,
        on_step=lambda i, n, x0: seen.append(float(np.abs(x0 - condition[:, :4]).mean())),
    )
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] < 0.1 * seen[0]


def test_guidance_scales_the_colour() -> None:
    config, canvas = CONFIGS["text"], canvas_of((140, 110, 110))
    spread = [np.ptp(colored_centre(config, canvas, 0, 10, g).mean(axis=(0, 1))) for g in (0, 1, 3)]
    assert spread[0] < 1
    assert spread[2] == pytest.approx(3 * spread[1], rel=0.1)


def test_gsrp_adds_the_page_s_detail_and_no_colour() -> None:
    gsrp = fake_engines(CONFIGS["plain"])["gsrp"]
    color = latents.to_model(np.full((1, 16, 16, 3), (200, 80, 40), np.uint8))
    flat = latents.to_model(np.full((1, 16, 16, 3), 90, np.uint8))
    np.testing.assert_allclose(gsrp({"color": color, "bw": flat})["image"], color, atol=1e-6)
    line = flat.copy()
    line[..., 4] = -1
    drawn = gsrp({"color": color, "bw": line})["image"]
    assert np.all(drawn[..., 4] < drawn[..., 3] - 0.2)
    np.testing.assert_allclose(drawn[:, 0] - drawn[:, 1], color[:, 0] - color[:, 1], atol=1e-6)


def test_clip_knows_a_patch_by_its_light_and_dark() -> None:
    encode = fake_engines(CONFIGS["plain"])["clip_encoder"]
    rng = np.random.default_rng(5)
    patches = rng.integers(0, 256, (6, 8, 8, 3)).astype(np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    gray = np.rint(patches @ REC601).astype(np.uint8)[..., np.newaxis].repeat(3, axis=-1)

    def embed(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        found = encode({"pixel_values": latents.to_model(images)})["image_embeds"]
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    similar = embed(gray) @ embed(patches).T
    assert np.array_equal(similar.argmax(axis=1), np.arange(6))
    assert np.diag(similar).min() > 0.98


def test_any_encoder_size_works() -> None:
    for size in (1, 7, 30):
        engine = FakeEngine("clip_encoder", fake_config(image_size=size))
        found = engine({"pixel_values": np.ones((2, 3, size, size), np.float32)})
        assert found["image_embeds"].shape == (2, 16)
        assert np.isfinite(found["image_embeds"]).all()


def test_feeds_are_checked_as_by_a_real_engine() -> None:
    engines = fake_engines(CONFIGS["plain"])
    with pytest.raises(EngineError, match=r"vae_encoder takes image float32\[B, 3, H, W\], got float32\[1, 4"):
        engines["vae_encoder"]({"image": np.zeros((1, 4, 8, 8), np.float32)})
    with pytest.raises(EngineError, match="sides that are multiples of 8, got 12x8"):
        engines["vae_encoder"]({"image": np.zeros((1, 3, 8, 12), np.float32)})


def test_fail_after() -> None:
    engine = fake_engines(CONFIGS["plain"], fail_after={"vae_decoder": 2})["vae_decoder"]
    feeds = random_feeds(engine, 1)
    engine(feeds), engine(feeds)
    for _ in range(2):
        with pytest.raises(EngineError, match="vae_decoder failed: this fake engine was told to, after 2 calls"):
            engine(feeds)


def test_cost_is_slept_by_batch() -> None:
    asked: list[int] = []

    def cost(batch: int) -> float:
        asked.append(batch)
        return 0.02 * batch

    engine = fake_engines(CONFIGS["plain"], cost={"vae_encoder": cost})["vae_encoder"]
    start = time.perf_counter()
    engine(random_feeds(engine, 2))
    assert time.perf_counter() - start >= 0.04
    assert asked == [2]
