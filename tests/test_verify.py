"""`colorflow-export verify`: what is right passes, and mistakes that a loose limit would hide do not."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from colorflow_export.cli import run
from colorflow_export.parity import Check, check_golden, check_pack
from PIL import Image
from safetensors.torch import load_file, save_file

from colorflow_rt.errors import DamagedPackError, PackError
from colorflow_rt.pack import file_hash

GOLDEN = Path(__file__).parent / "golden"
NETS = "sd_small_5ch"


def copy(name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / name, tmp_path / name))


def failed(folder: Path) -> set[str]:
    return {check.name for check in check_golden(folder) if not check.passed}


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("sd_small_5ch", 63),
        ("sd_small_9ch", 43),
        ("retrieval_portrait", 8),
        ("retrieval_square", 8),
        ("retrieval_odd", 8),
    ],
)
def test_golden_folders_pass(name: str, count: int) -> None:
    checks = list(check_golden(GOLDEN / name))
    assert [check for check in checks if not check.passed] == []
    assert len({check.name for check in checks}) == len(checks) == count


def test_every_tensor_of_a_golden_folder_is_compared() -> None:
    """But for the inputs."""
    inputs = {"call_cond", "call_context", "call_sample", "gsrp_bw", "gsrp_low", "initial_latents", "canvas"}
    prompts = {"prompt_embeds", "negative_prompt_embeds"}
    tensors = load_file(GOLDEN / NETS / "tensors.safetensors").keys()
    assert {check.name for check in check_golden(GOLDEN / NETS)} >= tensors - inputs - prompts


@pytest.mark.parametrize(
    ("key", "value", "wrong"),
    [("guidance_scale", 7.65, {"latents_0", "image"}), ("lora_alpha", 4.1, {"call_eps", "latents_9"})],
)
def test_small_mistakes_in_the_settings_are_seen(key: str, value: float, wrong: set[str], tmp_path: Path) -> None:
    folder = copy(NETS, tmp_path)
    configs = json.loads((folder / "configs.json").read_text())
    configs["run"][key] = value
    (folder / "configs.json").write_text(json.dumps(configs))
    assert failed(folder) >= wrong


def test_small_changes_of_the_vectors_are_seen(tmp_path: Path) -> None:
    folder = copy(NETS, tmp_path)
    tensors = load_file(folder / "tensors.safetensors")
    tensors["call_up_3"] *= 1 + 3e-5
    tensors["gsrp_fused_batchstats_2"] *= 1 - 3e-5
    tensors["latents_4"][0, 0, 0, 0] = float("nan")
    save_file(tensors, folder / "tensors.safetensors")
    assert failed(folder) == {"call_up_3", "gsrp_fused_batchstats_2", "latents_4", "runtime loop, latents_4"}


def test_one_pixel_is_seen(tmp_path: Path) -> None:
    folder = copy("retrieval_square", tmp_path)
    with Image.open(folder / "canvas.png") as image:
        canvas = np.array(image)
    canvas[5, 7, 1] ^= 1
    Image.fromarray(canvas).save(folder / "canvas.png")
    assert failed(folder) == {"canvas"}
    assert run(["verify", "--golden", str(folder)]) == 1


def test_another_choice_of_patches_is_seen(tmp_path: Path) -> None:
    folder = copy("retrieval_square", tmp_path)
    expected = json.loads((folder / "expected.json").read_text())
    expected["top3"][2].reverse()
    (folder / "expected.json").write_text(json.dumps(expected))
    assert failed(folder) == {"top3"}


@pytest.mark.parametrize("name", ["vae.safetensors", "unet_lora.bin", "tensors.safetensors"])
def test_a_damaged_folder_is_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copy(NETS, tmp_path)
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    assert run(["verify", "--golden", str(folder)]) == 1
    message = capsys.readouterr().err.splitlines()
    assert len(message) == 1
    assert message[0].startswith("error: cannot read")


def test_a_folder_of_another_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="neither the layout of golden/sd_small_5ch nor"):
        list(check_golden(tmp_path))


def test_a_pack_passes_and_prints_its_table(golden_pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", "--pack", str(golden_pack)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "37 of 37 within their limits"  # 28 of them features of the guider
    for name in ("denoise_step, sample_next", "guider, feature_27", "denoise_reuse, x0"):
        assert name in "\n".join(lines)
    assert "dB" in lines[-2]


def test_graphs_that_are_not_the_weights_fail(tiny_pack: Path, tmp_path: Path) -> None:
    """Another scaling factor in pack.toml: the modules follow it, the graphs do not."""
    pack = Path(shutil.copytree(tiny_pack, tmp_path / "tiny"))
    text = (pack / "pack.toml").read_text()
    (pack / "pack.toml").write_text(text.replace("scaling_factor = 0.5", "scaling_factor = 0.51"))
    wrong = {check.name for check in check_pack(pack) if not check.passed}
    assert {"vae_encoder, latents", "vae_decoder, image"} <= wrong
    assert "clip_encoder, image_embeds" not in wrong


def test_damaged_and_misfit_weights_are_refused(tiny_pack: Path, tmp_path: Path) -> None:
    pack = Path(shutil.copytree(tiny_pack, tmp_path / "tiny"))
    weights = pack / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(DamagedPackError, match=r"weights\.safetensors"):
        list(check_pack(pack))
    tensors = load_file(tiny_pack / "weights.safetensors")
    del tensors["vae.encoder.conv_in.bias"]
    save_file(tensors, weights)
    text = (pack / "pack.toml").read_text()
    (pack / "pack.toml").write_text(text.replace(file_hash(tiny_pack / "weights.safetensors"), file_hash(weights)))
    with pytest.raises(PackError, match=r"weights of vae do not fit: missing encoder.conv_in.bias"):
        list(check_pack(pack))


@pytest.mark.parametrize(
    ("value", "limit", "unit", "passed"),
    [
        (1e-5, 1e-5, "relative error", True),
        (1.1e-5, 1e-5, "relative error", False),
        (float("nan"), 1e-5, "relative error", False),
        (50.0, 50.0, "dB", True),
        (49.9, 50.0, "dB", False),
        (float("inf"), 50.0, "dB", True),
        (1, 0, "pixels", False),
    ],
)
def test_limits(value: float, limit: float, unit: str, passed: bool) -> None:
    assert Check("x", value, limit, unit).passed is passed


def test_the_caller_s_gradient_mode_is_left_alone() -> None:
    checks = check_golden(GOLDEN / NETS)
    next(checks)
    assert torch.is_grad_enabled()
