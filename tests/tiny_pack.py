"""Whole packs with tiny networks: every graph really runs, in milliseconds."""

from pathlib import Path
from typing import Any

import torch
from colorflow_export.golden import load_golden
from colorflow_export.modules import Embedder, FusionNet
from colorflow_export.modules.bundle import Modules
from colorflow_export.modules.unet import UNET_ARGUMENTS
from colorflow_export.modules.vae import VAE_ARGUMENTS
from colorflow_export.packs import PackRecipe
from torch import nn

from colorflow_rt.pack_config import DefaultsConfig, EncoderConfig, ModelConfig, PagesConfig, StyleConfig
from colorflow_rt.schedule import NoiseConfig

GOLDEN = Path(__file__).parent / "golden" / "sd_small_9ch"
MODEL = ModelConfig(
    latent_channels=4,
    vae_factor=4,
    scaling_factor=0.5,
    condition_channels=5,
    luminance_planes=8,
    prediction_type="v_prediction",
)
_NET: dict[str, Any] = {
    "in_channels": 4,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 2,
}
_CLIP: dict[str, Any] = {
    "image_size": 16,
    "patch_size": 8,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "projection_dim": 8,
}
TINY: dict[str, dict[str, Any]] = {
    "unet": _NET
    | {
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        "out_channels": 4,
        "cross_attention_dim": 0,
    },
    "guider": _NET
    | {
        "down_block_types": ["DownBlock2D", "SelfAttnDownBlock2D"],
        "up_block_types": ["SelfAttnUpBlock2D", "UpBlock2D"],
    },
    "vae": {
        "in_channels": 3,
        "out_channels": 3,
        "block_out_channels": [8, 8, 16],
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 4,
    },
    "fusion": {},
    "clip": _CLIP,
}


def tiny_modules(statistics: str = "running", seed: int = 0) -> Modules:
    torch.manual_seed(seed)
    modules = Modules.create(TINY, MODEL, statistics)
    for module in modules.parts().values():
        disturb(module)
    return modules


def disturb(module: nn.Module) -> None:
    """Random values also where a new layer has zeros or ones, which would hide what is behind them."""
    for parameter in module.parameters():
        if not parameter.any() or bool((parameter == 1).all()):
            parameter.data.add_(0.2 * torch.randn_like(parameter))
    for name, buffer in module.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.mul_(torch.rand_like(buffer) + 0.5).add_(0.1)


def tiny_recipe(statistics: str = "running") -> PackRecipe:
    return PackRecipe(
        name="tiny",
        version="0.1.0",
        license="Apache-2.0",
        description="Random weights, for tests.",
        style=StyleConfig(("gray", "screentone", "lineart"), "page"),
        pages=PagesConfig(((64, 96), (96, 64), (64, 64)), 32, 1.5, statistics),
        encoder=EncoderConfig("tiny", _CLIP["image_size"], "whole", (0.5,) * 3, (0.25,) * 3, _CLIP["projection_dim"]),
        scheduler=NoiseConfig(),
        defaults=DefaultsConfig(4, 1.0, "pad", guider_steps=4),
        modules=TINY,
    )


def golden_modules() -> Modules:
    """The networks of golden/sd_small_9ch, made whole by a random fusion net and CLIP tower."""
    golden = load_golden(GOLDEN)
    torch.manual_seed(1)
    fusion = FusionNet(golden.configs["vae"], "batch")
    disturb(fusion)
    old = golden.modules
    text = old.prompt_embeds, old.negative_prompt_embeds
    return Modules(old.model, old.unet, old.guider, old.vae, fusion, Embedder(_CLIP), *text)


def golden_recipe() -> PackRecipe:
    configs = load_golden(GOLDEN).configs
    modules = {
        "unet": _arguments(configs["unet"], UNET_ARGUMENTS),
        "guider": _arguments(configs["colorguider"], UNET_ARGUMENTS),
        "vae": _arguments(configs["vae"], VAE_ARGUMENTS),
        "fusion": {},
        "clip": _CLIP,
    }
    return PackRecipe(
        name="golden",
        version="0.1.0",
        license="Apache-2.0",
        description="The small golden networks, for tests.",
        style=StyleConfig(("gray", "screentone"), "blend"),
        pages=PagesConfig(((96, 64), (64, 64)), 32, 1.5, "batch"),
        encoder=EncoderConfig("tiny", _CLIP["image_size"], "center", (0.5,) * 3, (0.25,) * 3, _CLIP["projection_dim"]),
        scheduler=NoiseConfig(),
        defaults=DefaultsConfig(3, 3.0, "crop", guider_steps=3),
        modules=modules,
    )


def _arguments(config: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key in known}
