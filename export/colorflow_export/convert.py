"""`colorflow-export convert`: released checkpoints to a pack (docs/engines.md).

Everything is compared by name and shape before anything is written. Parts are written one after another, each in its
own file, so that memory holds one part at a time; the graphs are then exported from the structure alone.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from colorflow_export.modules.bundle import Modules
from colorflow_export.modules.unet import UNET_ARGUMENTS
from colorflow_export.modules.vae import VAE_ARGUMENTS
from colorflow_export.packs import PackRecipe, whole_folder, write_graphs
from colorflow_export.prompt import prompt_embeddings
from colorflow_export.released import VAE_ALIASES, Checkpoint, check_keys, check_shapes, read_checkpoint, read_json
from colorflow_export.to_onnx import OPSET
from colorflow_export.weights import Place, read_places, stored
from colorflow_rt.errors import OutputError, PackError
from colorflow_rt.pack_config import DefaultsConfig, EncoderConfig, ModelConfig, PackConfig, PagesConfig, StyleConfig
from colorflow_rt.records import read_record
from colorflow_rt.schedule import NoiseConfig

NOTICE = "LICENSE-NOTICE.txt"
LICENSE = (
    "These weights were made from released ColorFlow weights (TencentARC/ColorFlow: academic, non-commercial use only) "
    "and Stable Diffusion 1.5 (CreativeML OpenRAIL-M). Their licences bind you and whoever you "
    "give the pack to."
)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_CLIP_ARGUMENTS = frozenset(
    {
        "hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads",
        "image_size", "patch_size", "hidden_act", "layer_norm_eps", "num_channels",
    }
)  # fmt: skip
_LORA = ".lora_A.default.weight", ".lora_B.default.weight"
_CLIP_SHARE = 1.05  # of disk beyond the weights: graphs, room for the file system
Say = Callable[[str], None]


@dataclass(frozen=True)
class ConvertOptions:
    """name: of the pack. sizes: its pages. rank, alpha: of the LoRA; they are 64 in the released model.

    statistics: of the fusion net's BatchNorm, "batch" as the authors' demo runs the released weights, or "running".
    storage: "float32" or "float16" (half the disk; cast once when a graph is loaded).
    text: a safetensors file with prompt_embeds and negative_prompt_embeds, in place of SD 1.5's text encoder.
    """

    name: str = "colorflow"
    sizes: tuple[tuple[int, int], ...] = ((512, 800), (800, 512), (640, 640))
    rank: int = 64
    alpha: float = 64.0
    statistics: str = "batch"
    storage: str = "float32"
    text: Path | None = None


@dataclass(frozen=True, eq=False)
class Release:
    """Everything that was found, compared with what the modules expect."""

    recipe: PackRecipe
    model: ModelConfig
    hollow: Modules
    parts: dict[str, Checkpoint]
    lora: Checkpoint
    text: dict[str, Tensor]
    alpha: float

    @property
    def parameters(self) -> int:
        return sum(p.numel() for part in self.hollow.parts().values() for p in part.state_dict().values())


def read_release(colorflow: Path, sd15: Path, options: ConvertOptions) -> Release:
    """Read both folders and compare them with what the modules expect, without loading the weights.

    PackError names what is missing, unexpected, misshapen, damaged or of another model.
    """
    _check_folders(colorflow, sd15)
    guider = read_checkpoint(colorflow / "GraySD", "the guider")
    _check_guider(guider)
    configs = _module_configs(colorflow, sd15)
    text = prompt_embeddings(sd15, options.text)
    scheduler, prediction = _scheduler(sd15)
    model = _model(configs, guider, text, prediction)
    parts = {
        "unet": read_checkpoint(sd15 / "unet", "SD 1.5's U-Net"),
        "guider": guider,
        "vae": read_checkpoint(sd15 / "vae", "SD 1.5's VAE", VAE_ALIASES),
        "fusion": read_checkpoint(colorflow / "GraySD" / "MultiResNetModel.bin", "the fusion net"),
        "clip": read_checkpoint(colorflow / "image_encoder", "the image encoder"),
    }
    hollow = Modules.hollow(configs, model, options.statistics, torch.float32)
    for part, module in hollow.parts().items():
        check_keys(parts[part], module)
    lora = read_checkpoint(colorflow / "GraySD" / "unet_lora.bin", "the LoRA")
    check_lora(lora, hollow.unet, options.rank)
    recipe = _recipe(options, configs, scheduler, model)
    return Release(recipe, model, hollow, parts, lora, text, options.alpha)


def _check_folders(colorflow: Path, sd15: Path) -> None:
    if (sd15 / "text_encoder_2").exists():
        raise PackError(f"{sd15} is SDXL, expected Stable Diffusion 1.5 in diffusers layout")
    for folder, children, what in (
        (colorflow, ("GraySD", "image_encoder"), "the ColorFlow release (TencentARC/ColorFlow)"),
        (sd15, ("unet", "vae"), "Stable Diffusion 1.5 in diffusers layout"),
    ):
        missing = [child for child in children if not (folder / child).is_dir()]
        if missing:
            raise PackError(f"{folder} is not {what}: it has no folder {', '.join(missing)}")


def _check_guider(guider: Checkpoint) -> None:
    if "pos_embed.proj.weight" in guider.shapes:
        raise PackError(f"{guider.what} is the PixArt guider of the line-art models, expected the SD one of GraySD/")
    if "conv_in_condition.weight" not in guider.shapes:
        raise PackError(f"{guider.what} is no ColorFlow guider: it has no conv_in_condition.weight")


def _module_configs(colorflow: Path, sd15: Path) -> dict[str, dict[str, Any]]:
    """Constructor arguments of the modules, from the released configs."""
    unet = read_json(sd15 / "unet" / "config.json", "SD 1.5's U-Net")
    if unet.get("addition_embed_type") or unet.get("use_linear_projection"):
        raise PackError(f"{sd15} is SDXL or SD 2, expected Stable Diffusion 1.5 (see unet/config.json)")
    guider = read_json(colorflow / "GraySD" / "config.json", "the guider")
    vae = read_json(sd15 / "vae" / "config.json", "SD 1.5's VAE")
    clip = read_json(colorflow / "image_encoder" / "config.json", "the image encoder")
    return {
        "unet": _chosen(unet, UNET_ARGUMENTS),
        "guider": _chosen(guider, UNET_ARGUMENTS),
        "vae": _chosen(vae, VAE_ARGUMENTS) | {"scaling_factor": float(vae.get("scaling_factor", 0.18215))},
        "fusion": {},
        "clip": _chosen(clip.get("vision_config") or clip, _CLIP_ARGUMENTS),
    }


def _chosen(config: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key in known and value is not None}


def _scheduler(sd15: Path) -> tuple[NoiseConfig, str]:
    """Noise and prediction type; spacing and solver are the runtime's own, as the released weights were judged."""
    path = sd15 / "scheduler" / "scheduler_config.json"
    config = read_json(path, "SD 1.5's scheduler") if path.is_file() else {}
    names = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
    noise = read_record(NoiseConfig, {name: config[name] for name in names if name in config}, "scheduler")
    return noise, str(config.get("prediction_type", "epsilon"))


def _model(
    configs: dict[str, dict[str, Any]], guider: Checkpoint, text: dict[str, Tensor], prediction: str
) -> ModelConfig:
    vae = configs["vae"]
    tokens, dim = text["text.prompt_embeds"].shape
    wanted = configs["unet"].get("cross_attention_dim")
    if dim != wanted:
        raise PackError(f"the prompt's embedding has {dim} channels, SD 1.5's U-Net takes {wanted}")
    latent = int(vae["latent_channels"])
    return ModelConfig(
        latent_channels=latent,
        vae_factor=2 ** (len(vae["block_out_channels"]) - 1),
        scaling_factor=vae.pop("scaling_factor"),
        condition_channels=guider.shapes["conv_in_condition.weight"][1] - latent,
        luminance_planes=0,
        prediction_type=prediction,
        text_tokens=tokens,
        text_dim=dim,
    )


def check_lora(lora: Checkpoint, unet: nn.Module, rank: int) -> None:
    """Both halves of every linear layer that the released LoRA is on, at this rank. PackError names what is wrong."""
    ranks = sorted({shape[0] for name, shape in lora.shapes.items() if name.endswith(_LORA[0])})
    if ranks and ranks != [rank]:
        found = ", ".join(map(str, ranks))
        raise PackError(
            f"{lora.what} has rank {found}, expected {rank}: if that is right, give --lora-rank and --lora-alpha"
        )
    expected: dict[str, tuple[int, ...]] = {}
    layers = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
    for name, module in unet.named_modules():
        if isinstance(module, nn.Linear) and ".transformer_blocks." in name and name.endswith(layers):
            out, into = module.weight.shape
            expected[name + _LORA[0]], expected[name + _LORA[1]] = (rank, into), (out, rank)
    check_shapes(lora.what, lora.shapes, expected)


def _recipe(
    options: ConvertOptions, configs: dict[str, dict[str, Any]], scheduler: NoiseConfig, model: ModelConfig
) -> PackRecipe:
    clip, levels = configs["clip"], len(configs["unet"]["block_out_channels"])
    multiple = 2 ** (levels - 1) * model.vae_factor // 2  # the canvas is twice the page
    encoder = EncoderConfig(
        "clip-image-encoder", clip["image_size"], "center", CLIP_MEAN, CLIP_STD, clip["projection_dim"]
    )
    return PackRecipe(
        name=options.name,
        version="1.0.0",
        license="ColorFlow: academic, non-commercial; SD 1.5: CreativeML OpenRAIL-M",
        description="the released ColorFlow model for gray and screentone pages, on Stable Diffusion 1.5",
        style=StyleConfig(("gray", "screentone"), "page"),
        pages=PagesConfig(options.sizes, multiple, 1.5, options.statistics),
        encoder=encoder,
        scheduler=scheduler,
        defaults=DefaultsConfig(10, 7.5, "pad"),
        modules=configs,
    )


def convert(
    colorflow: Path, sd15: Path, out: Path, options: ConvertOptions, say: Say = lambda line: None
) -> PackConfig:
    """Write the pack `out` from both folders; all of it or nothing. `say` hears what is done.

    PackError as `read_release`; OutputError if `out` cannot be written, holds something else, or the disk is too small.
    """
    release = read_release(colorflow, sd15, options)
    channels = release.model.condition_channels
    say(f"{release.parameters / 1e6:.1f} million parameters, {channels} condition channels: every tensor fits")
    _check_room(out, release, options.storage)
    with whole_folder(out) as folder:
        (folder / NOTICE).write_text(LICENSE + "\n", encoding="utf-8")
        places: dict[str, Place] = {}
        for part, tensors in _parts(release):
            path = folder / f"{part}.safetensors"
            save_file({f"{part}.{name}": stored(value, options.storage) for name, value in tensors.items()}, path)
            path.chmod(0o644)
            places |= read_places(path)
            say(f"{path.name}: {len(tensors)} tensors, {path.stat().st_size / 1e6:.0f} MB")
        hollow = replace_text(release.hollow, release.text)
        return write_graphs(hollow, release.recipe, places, folder, OPSET, lambda name: say(f"graph {name}"))


def replace_text(modules: Modules, text: dict[str, Tensor]) -> Modules:
    """The modules with the prompt's embeddings in place."""
    prompt, negative = text["text.prompt_embeds"], text["text.negative_prompt_embeds"]
    return replace(modules, prompt_embeds=prompt, negative_prompt_embeds=negative)


def _parts(release: Release) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The tensors of one part after another, the LoRA folded into the U-Net."""
    yield "text", {name.removeprefix("text."): tensor for name, tensor in release.text.items()}
    for part, checkpoint in release.parts.items():
        tensors = {name: checkpoint.tensor(name) for name in checkpoint.shapes}
        if part == "unet":
            _fold(tensors, release.lora, release.alpha)
        yield part, tensors


def _fold(tensors: dict[str, Tensor], lora: Checkpoint, alpha: float) -> None:
    """Add the LoRA to the weights, layer by layer: W + alpha/rank B A."""
    for name in lora.shapes:
        if name.endswith(_LORA[0]):
            layer = name.removesuffix(_LORA[0])
            down, up = lora.tensor(name), lora.tensor(layer + _LORA[1])
            key = f"{layer}.weight"
            tensors[key] = tensors[key] + (alpha / down.shape[0]) * (up @ down)


def _check_room(out: Path, release: Release, storage: str) -> None:
    needed = int(release.parameters * (2 if storage == "float16" else 4) * _CLIP_SHARE)
    there = out
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if needed > free:
        raise OutputError(
            f"{out} needs {needed / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB free: choose another --out, or "
            "--storage float16"
        )
