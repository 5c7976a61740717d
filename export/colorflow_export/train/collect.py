"""From the checkpoints of the four stages to the pack `mini`, and back: training goes on from bundled weights."""

from pathlib import Path

import torch

from colorflow_export.modules import ColorVAE, FusionNet
from colorflow_export.modules.bundle import Modules
from colorflow_export.packs import PackRecipe, load_modules, write_pack
from colorflow_export.train import config
from colorflow_export.train.crops import CLIP_MEAN, CLIP_STD
from colorflow_export.train.loop import checkpoint_path, save
from colorflow_export.train.stages import Contrastive, Denoiser, load_ema
from colorflow_rt.pack_config import (
    DefaultsConfig,
    EncoderConfig,
    ModelConfig,
    PackConfig,
    PagesConfig,
    StyleConfig,
)
from colorflow_rt.schedule import NoiseConfig


def trained_modules(work: Path) -> Modules:
    """The averaged weights of every stage in `work`."""
    vae, clip, denoiser = ColorVAE.create(config.MINI["vae"]), Contrastive(), Denoiser()
    fusion = FusionNet(config.MINI["vae"], "running")
    for net, stage in ((vae, "vae"), (clip, "clip"), (denoiser, "unet"), (fusion, "gsrp")):
        load_ema(net, work, stage)
    return Modules(_model(), denoiser.unet, denoiser.guider, vae, fusion, clip.clip)


def _model() -> ModelConfig:
    return ModelConfig(
        latent_channels=config.MINI["vae"]["latent_channels"],
        vae_factor=2 ** (len(config.MINI["vae"]["block_out_channels"]) - 1),
        scaling_factor=1 / config.LATENT_STD,
        condition_channels=config.CONDITION_CHANNELS,
        luminance_planes=config.LUMINANCE_PLANES,
        prediction_type=config.PREDICTION_TYPE,
    )


def recipe(version: str) -> PackRecipe:
    """What pack.toml of `mini` says beside its weights."""
    clip = config.MINI["clip"]
    return PackRecipe(
        name="mini",
        version=version,
        license="Apache-2.0",
        description="small model of our own, trained on generated comics; paints at 128x192, no text",
        style=StyleConfig(inputs=("gray", "screentone", "lineart"), context="page"),
        pages=PagesConfig(
            config.PAGE_SIZES,
            32,
            1.5,
            "running",
            resample=config.RESAMPLE,
            screentone="removed",
            chroma_noise=config.CHROMA_NOISE,
            palette_noise=config.PALETTE_NOISE,
        ),
        encoder=EncoderConfig(
            id="mini-clip-1",
            image_size=clip["image_size"],
            crop="whole",
            mean=tuple(CLIP_MEAN.tolist()),
            std=tuple(CLIP_STD.tolist()),
            dim=clip["projection_dim"],
        ),
        scheduler=NoiseConfig(),
        defaults=DefaultsConfig(steps=10, guidance_scale=1.0, fit="pad", guider_steps=4),
        modules=config.MINI,
    )


def collect(work: Path, out: Path, version: str) -> PackConfig:
    """Write the pack of the stages trained in `work` to the folder `out`."""
    return write_pack(trained_modules(work), recipe(version), out)


def restart_from_pack(pack: Path, work: Path) -> None:
    """Make every stage in `work` start from the weights of a pack; stages that have a checkpoint are left alone."""
    modules = load_modules(pack)
    denoiser = {f"{part}.{k}": v for part in ("unet", "guider") for k, v in modules.parts()[part].state_dict().items()}
    contrastive = Contrastive()
    if modules.clip is None or modules.fusion is None:
        raise SystemExit(f"{pack} is not a whole pack: it lacks its CLIP tower or its fusion net")
    contrastive.clip.load_state_dict(modules.clip.state_dict())
    starts: dict[str, dict[str, torch.Tensor]] = {
        "vae": modules.vae.state_dict(),
        "clip": contrastive.state_dict(),
        "unet": denoiser,
        "gsrp": modules.fusion.state_dict(),
    }
    for stage, weights in starts.items():
        path = checkpoint_path(work, stage)
        if not path.exists():
            save(path, {"model": weights, "ema": _floats(weights), "optimizer": None, "step": 0})


def _floats(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.float() for name, value in weights.items()}
