"""Golden folders: small networks in the released layout, inputs and outputs of the authors' own modules."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from colorflow_export.checkpoints import load_strict, read_tensors
from colorflow_export.modules import ColorGuider, ColorUNet, ColorVAE, FusionNet, fold_lora
from colorflow_export.modules.bundle import Modules
from colorflow_rt.errors import PackError
from colorflow_rt.pack_config import ModelConfig


@dataclass(frozen=True, eq=False)
class Golden:
    """A folder of the layout of golden/sd_small_5ch: networks (LoRA folded), vectors, settings."""

    modules: Modules
    tensors: dict[str, Tensor]
    configs: dict[str, Any]

    @property
    def steps(self) -> int:
        return int(self.configs["run"]["steps"])

    @property
    def guidance_scale(self) -> float:
        return float(self.configs["run"]["guidance_scale"])


def load_golden(folder: Path) -> Golden:
    """Read a golden folder; PackError if a file is missing or a weight does not fit."""
    try:
        configs = json.loads((folder / "configs.json").read_text())
    except (OSError, ValueError) as error:
        raise PackError(f"cannot read {folder}: {error}; expected the layout of golden/sd_small_5ch") from error
    tensors = read_tensors(folder / "tensors.safetensors")
    unet = ColorUNet.create(configs["unet"])
    load_strict(unet, read_tensors(folder / "unet.safetensors"), "unet")
    if (folder / "unet_lora.bin").exists():
        fold_lora(unet, read_tensors(folder / "unet_lora.bin"), configs["run"]["lora_alpha"])
    guider = ColorGuider.create(configs["colorguider"], configs["colorguider"]["conditioning_channels"])
    load_strict(guider, read_tensors(folder / "colorguider.safetensors"), "colorguider")
    vae = ColorVAE.create(configs["vae"])
    load_strict(vae, read_tensors(folder / "vae.safetensors"), "vae")
    modules = Modules(
        _model_config(configs, tensors),
        unet,
        guider,
        vae,
        fusion=_fusion(folder, configs),
        prompt_embeds=tensors["prompt_embeds"][0],
        negative_prompt_embeds=tensors["negative_prompt_embeds"][0],
    )
    return Golden(modules, tensors, configs)


def _model_config(configs: dict[str, Any], tensors: dict[str, Tensor]) -> ModelConfig:
    tokens, dim = tensors["prompt_embeds"].shape[1:]
    return ModelConfig(
        latent_channels=configs["vae"]["latent_channels"],
        vae_factor=2 ** (len(configs["vae"]["block_out_channels"]) - 1),
        scaling_factor=configs["vae"]["scaling_factor"],
        condition_channels=configs["colorguider"]["conditioning_channels"],
        luminance_planes=0,
        prediction_type=configs["scheduler"]["prediction_type"],
        text_tokens=tokens,
        text_dim=dim,
    )


def _fusion(folder: Path, configs: dict[str, Any]) -> FusionNet | None:
    path = folder / "MultiResNetModel.bin"
    if not path.exists():
        return None
    fusion = FusionNet(configs["vae"], "running")
    load_strict(fusion, read_tensors(path), "fusion")
    return fusion


def relative_error(ours: Tensor, truth: Tensor) -> float:
    """Norm of the difference over the norm of the truth, in float64; inf where shapes differ."""
    if ours.shape != truth.shape:
        return float("inf")
    difference = (ours.double() - truth.double()).norm()
    return float(difference / truth.double().norm())
