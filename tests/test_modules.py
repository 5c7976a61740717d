"""The PyTorch modules against the authors' own outputs (golden/), names and shapes against the released."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from colorflow_export.checkpoints import load_strict, read_tensors
from colorflow_export.golden import Golden, load_golden, relative_error
from colorflow_export.modules import ColorGuider, ColorUNet, ColorVAE, FusionNet, fold_lora, super_resolve
from colorflow_export.modules.fusion import SampleStatisticsNorm
from torch import Tensor

from colorflow_rt.errors import PackError

GOLDEN = Path(__file__).parent / "golden"
LIMIT = 1e-5
SD15_UNET: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
SD15_VAE = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4}


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module", params=["sd_small_5ch", "sd_small_9ch"])
def golden(request: pytest.FixtureRequest) -> Golden:
    return load_golden(GOLDEN / request.param)


@pytest.fixture(scope="module")
def five() -> Golden:
    return load_golden(GOLDEN / "sd_small_5ch")


def controls_of(golden: Golden) -> list[Tensor]:
    t = golden.tensors
    return list(golden.modules.guider(t["call_sample"], torch.tensor([501, 501]), t["call_cond"]))


def test_guider_call(golden: Golden) -> None:
    controls = controls_of(golden)
    downs = [f"call_down_{i}" for i in range(12)]
    names = [*downs, "call_mid", *(f"call_up_{i}" for i in range(15))]
    assert len(controls) == 28
    for name, control in zip(names, controls, strict=True):
        assert relative_error(control, golden.tensors[name]) < LIMIT, name


def test_unet_call(golden: Golden) -> None:
    t = golden.tensors
    eps = golden.modules.unet(t["call_sample"], torch.tensor([501, 501]), t["call_context"], controls_of(golden))
    assert relative_error(eps, t["call_eps"]) < LIMIT


def test_without_controls_is_another_result(golden: Golden) -> None:
    t = golden.tensors
    eps = golden.modules.unet(t["call_sample"], torch.tensor([501, 501]), t["call_context"], None)
    assert relative_error(eps, t["call_eps"]) > 100 * LIMIT


@pytest.mark.parametrize("statistics", ["running", "batch"])
def test_super_resolution(five: Golden, statistics: str) -> None:
    t, vae, fusion = five.tensors, five.modules.vae, five.modules.fusion
    assert fusion is not None
    fusion.use_statistics(statistics)
    infix = "" if statistics == "running" else "_batchstats"
    mean, log_variance, color = vae.moments(t["gsrp_low"])
    assert relative_error(mean, t["gsrp_latent"]) < LIMIT
    assert log_variance.exp().max() < 1e-8  # the golden's posterior samples are its means
    fused = fusion(color, vae.moments(t["gsrp_bw"])[2])
    for i in (2, 3, 4):
        assert relative_error(color[i], t[f"gsrp_hidden_{i}"]) < LIMIT
        assert relative_error(fused[i], t[f"gsrp_fused{infix}_{i}"]) < LIMIT
    image = super_resolve(vae, fusion, t["gsrp_low"], t["gsrp_bw"])
    assert relative_error(image, t[f"gsrp_out{infix}"]) < LIMIT
    shapes = [list(tap.shape) for tap in color]
    assert shapes == five.configs["run"]["gsrp_hidden_shapes"]


@pytest.mark.parametrize("statistics", ["running", "batch"])
def test_fusion_never_mixes_a_batch(five: Golden, statistics: str) -> None:
    vae, fusion = five.modules.vae, five.modules.fusion
    assert fusion is not None
    fusion.use_statistics(statistics)
    low, bw = five.tensors["gsrp_low"][..., :48, :48], five.tensors["gsrp_bw"][..., :48, :48]
    colors, bws = torch.cat([low, -low.flip(-1)]), torch.cat([bw, bw.flip(-2)])
    both = super_resolve(vae, fusion, colors, bws)
    for i in range(2):
        alone = super_resolve(vae, fusion, colors[i : i + 1], bws[i : i + 1])
        assert relative_error(both[i : i + 1], alone) < LIMIT


def test_statistics_modes_are_checked_and_differ(five: Golden) -> None:
    with pytest.raises(ValueError, match="expected 'batch' or 'running'"):
        FusionNet(five.configs["vae"], "both")
    norm = SampleStatisticsNorm(3).eval()
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 5 + 3
    assert norm(x).mean() > 2  # running statistics of a new layer: mean 0, variance 1
    norm.batch_statistics = True
    assert abs(norm(x).mean()) < 1e-5


def test_lora_folds_into_the_weights() -> None:
    folder = GOLDEN / "sd_small_5ch"
    unet = ColorUNet.create(json.loads((folder / "configs.json").read_text())["unet"])
    load_strict(unet, read_tensors(folder / "unet.safetensors"), "unet")
    lora = read_tensors(folder / "unet_lora.bin")
    layer = "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"
    before = unet.get_submodule(layer).weight.clone()
    fold_lora(unet, lora, alpha=8)
    down, up = (lora[f"{layer}.lora_{half}.default.weight"] for half in "AB")
    torch.testing.assert_close(unet.get_submodule(layer).weight, before + 8 / down.shape[0] * up @ down)


def test_lora_that_does_not_fit_is_refused(five: Golden) -> None:
    good = read_tensors(GOLDEN / "sd_small_5ch" / "unet_lora.bin")
    down, up = sorted(good)[:2]
    with pytest.raises(ValueError, match="expected lora_A, lora_B"):
        fold_lora(five.modules.unet, {down: good[down]}, 4)
    with pytest.raises(ValueError, match="a layer of this name"):
        fold_lora(five.modules.unet, {f"nowhere.{key}": good[key] for key in (down, up)}, 4)
    with pytest.raises(ValueError, match="do not fit"):
        fold_lora(five.modules.unet, {down: good[down][:, :3], up: good[up]}, 4)


def test_guider_starts_from_the_unet(five: Golden) -> None:
    unet = five.modules.unet
    guider = ColorGuider.create(five.configs["colorguider"], 9)
    guider.load_from_unet(unet)
    weight = guider.conv_in_condition.weight
    assert torch.equal(weight[:, :4], unet.conv_in.weight)
    assert not weight[:, 4:].any()
    theirs, ours = unet.state_dict(), guider.state_dict()
    shared = [key for key in ours if not key.startswith(("brushnet_", "conv_in_condition."))]
    assert len(shared) > 300
    assert all(torch.equal(ours[key], theirs[key]) for key in shared)
    sample = torch.zeros(1, 4, 16, 8)
    controls = guider(sample, torch.tensor([3]), torch.ones(1, 9, 16, 8))
    assert not any(control.any() for control in controls)  # zero convolutions: training starts from the U-Net


def released(name: str) -> dict[str, list[int]]:
    return dict(json.loads((GOLDEN / "checkpoint_keys.json").read_text())[name])


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("unet_sd15", lambda: ColorUNet.create(SD15_UNET)),
        ("colorguider_sd_5ch", lambda: ColorGuider.create(SD15_UNET, 5)),
        ("colorguider_sd_9ch", lambda: ColorGuider.create(SD15_UNET, 9)),
        ("MultiResNetModel", lambda: FusionNet(SD15_VAE, "batch")),
    ],
)
def test_full_size_names_and_shapes_are_the_released_ones(name: str, build: Any) -> None:
    with torch.device("meta"):
        ours = {key: list(value.shape) for key, value in build().state_dict().items()}
    assert ours == released(name)


def test_full_size_lora_fits_the_unet() -> None:
    with torch.device("meta"):
        unet = ColorUNet.create(SD15_UNET)
        fold_lora(unet, {k: torch.empty(shape) for k, shape in released("unet_lora_r64").items()}, 64)


def test_checkpoints_are_loaded_strictly(five: Golden, tmp_path: Path) -> None:
    vae = ColorVAE.create(five.configs["vae"])
    tensors = read_tensors(GOLDEN / "sd_small_5ch" / "vae.safetensors")
    key = "quant_conv.weight"
    with pytest.raises(PackError, match=rf"missing {key}"):
        load_strict(vae, {k: v for k, v in tensors.items() if k != key}, "vae")
    with pytest.raises(PackError, match=r"unknown extra"):
        load_strict(vae, tensors | {"extra": torch.zeros(1)}, "vae")
    with pytest.raises(PackError, match=rf"{key} is \[1\]"):
        load_strict(vae, tensors | {key: torch.zeros(1)}, "vae")
    damaged = tmp_path / "vae.safetensors"
    damaged.write_bytes((GOLDEN / "sd_small_5ch" / "vae.safetensors").read_bytes()[:5000])
    with pytest.raises(PackError, match="cannot read"):
        read_tensors(damaged)
    torch.save([torch.zeros(1)], tmp_path / "list.bin")
    with pytest.raises(PackError, match="not a state dict"):
        read_tensors(tmp_path / "list.bin")
