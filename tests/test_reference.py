"""The published procedure in PyTorch: the authors' own loop, and the same pages as the runtime."""

from pathlib import Path

import numpy as np
import pytest
import torch
from colorflow_export.golden import load_golden, relative_error
from colorflow_export.reference import Procedure, ReferenceColorizer
from torch import Tensor

from colorflow_rt import latents as lat
from colorflow_rt.metrics import psnr
from colorflow_rt.options import ColorizeOptions
from colorflow_rt.pipeline import Colorizer
from colorflow_rt.schedule import SchedulerConfig

GOLDEN = Path(__file__).parent / "golden"
LIMIT = 1e-5


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", ["sd_small_5ch", "sd_small_9ch"])
def test_the_loop_is_the_authors(name: str, channels_last: bool) -> None:
    golden = load_golden(GOLDEN / name)
    t = golden.tensors
    procedure = Procedure(golden.modules, SchedulerConfig(), channels_last=channels_last)
    found: list[Tensor] = []
    latents = procedure.denoise(
        t["initial_latents"], t["cond"], golden.steps, golden.guidance_scale, lambda i, sample: found.append(sample)
    )
    assert len(found) == golden.steps
    for i, sample in enumerate(found):
        assert relative_error(sample, t[f"latents_{i}"]) < LIMIT, i
    image = procedure.decode(latents)[0].permute(1, 2, 0).div(2).add(0.5).clamp(0, 1)
    assert relative_error(image, t["image"]) < LIMIT


@pytest.mark.parametrize("name", ["sd_small_5ch", "sd_small_9ch"])
def test_the_condition_is_the_authors(name: str) -> None:
    """From the canvas: the runtime's mask and blacked-out images, the golden VAE's latents."""
    golden = load_golden(GOLDEN / name)
    canvas, model = golden.tensors["canvas"].numpy(), golden.modules.model
    procedure = Procedure(golden.modules, SchedulerConfig())

    def encode(image: np.ndarray) -> np.ndarray:
        return procedure.encode(torch.from_numpy(lat.to_model(image[np.newaxis])), halves=2).numpy()

    mask = lat.mask((canvas.shape[1] // 2, canvas.shape[0] // 2), model.vae_factor)
    if model.has_inner:
        ours = lat.condition(encode(lat.blacked_out(canvas)), mask, encode(lat.inner_only(canvas)))
    else:
        ours = lat.condition(encode(canvas), mask)
    assert relative_error(torch.from_numpy(ours), golden.tensors["cond"]) < LIMIT


@pytest.mark.parametrize(
    ("fixture", "guidance_scale"), [("tiny_pack", 1.0), ("golden_pack", 3.0), ("golden_pack", 1.0)]
)
def test_a_page_is_the_runtime_s(fixture: str, guidance_scale: float, request: pytest.FixtureRequest) -> None:
    pack: Path = request.getfixturevalue(fixture)
    rng = np.random.default_rng(0)
    page = np.repeat(rng.integers(0, 256, (90, 130, 1), np.uint8), 3, axis=2)
    references = [rng.integers(0, 256, (100, 100, 3), np.uint8) for _ in range(2)]
    options = ColorizeOptions(steps=3, seed=5, guidance_scale=guidance_scale, guider_steps=3)
    ours = Colorizer(pack).colorize(page, references, options)
    theirs = ReferenceColorizer(pack).colorize(page, references, options)
    assert ours.canvas is not None
    assert theirs.canvas is not None
    assert np.array_equal(ours.canvas, theirs.canvas)
    assert psnr(theirs.model_image, ours.model_image) >= 50
    assert theirs.seconds.keys() == ours.seconds.keys()


def test_another_seed_is_another_page(tiny_pack: Path) -> None:
    """So that agreement above is not that of pictures that depend on nothing."""
    page = np.full((64, 64, 3), 128, np.uint8)
    references = [np.full((64, 64, 3), (200, 30, 30), np.uint8)]
    first, second = (
        ReferenceColorizer(tiny_pack).colorize(page, references, ColorizeOptions(steps=2, seed=seed)).model_image
        for seed in (1, 2)
    )
    assert psnr(first, second) < 45
