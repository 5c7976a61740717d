"""Folders laid out like the released checkpoints: the small golden networks, or a full-size model of random weights.

python tests/released.py FOLDER      writes FOLDER/colorflow and FOLDER/sd15 at full size (15 GB)
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"
CLIP = {"hidden_size": 1280, "intermediate_size": 5120, "projection_dim": 1024, "num_hidden_layers": 32}
CLIP |= {"num_attention_heads": 16, "image_size": 224, "patch_size": 14, "hidden_act": "gelu"}
SMALL_CLIP = {"hidden_size": 16, "intermediate_size": 32, "projection_dim": 8, "num_hidden_layers": 2}
SMALL_CLIP |= {"num_attention_heads": 2, "image_size": 16, "patch_size": 8}
TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
UNET = {"in_channels": 4, "out_channels": 4, "block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2}
UNET |= {"attention_head_dim": 8, "cross_attention_dim": 768, "norm_num_groups": 32}
GUIDER = {key: value for key, value in UNET.items() if key != "out_channels"} | {"conditioning_channels": 5}
VAE = {"in_channels": 3, "out_channels": 3, "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2}
VAE |= {"latent_channels": 4, "norm_num_groups": 32, "scaling_factor": 0.18215}


def arrange_golden(source: Path, root: Path) -> tuple[Path, Path, Path]:
    """A golden folder as (ColorFlow release, SD 1.5 folder, file of prompts), with a random image encoder."""
    from colorflow_export.modules import Embedder

    colorflow, sd15, text = root / "colorflow", root / "sd15", root / "text.safetensors"
    configs = json.loads((source / "configs.json").read_text())
    for folder, config in (
        (colorflow / "GraySD", configs["colorguider"]),
        (colorflow / "image_encoder", SMALL_CLIP),
        (sd15 / "unet", configs["unet"]),
        (sd15 / "vae", configs["vae"]),
    ):
        _config(folder / "config.json", config)
    _config(sd15 / "scheduler" / "scheduler_config.json", configs["scheduler"])
    torch.save(load_file(source / "colorguider.safetensors"), colorflow / "GraySD" / "diffusion_pytorch_model.bin")
    for name in ("unet_lora.bin", "MultiResNetModel.bin"):
        shutil.copy(source / name, colorflow / "GraySD" / name)
    for name in ("unet", "vae"):
        shutil.copy(source / f"{name}.safetensors", sd15 / name / "diffusion_pytorch_model.safetensors")
    torch.manual_seed(1)
    save_file(dict(Embedder(SMALL_CLIP).tower.state_dict()), colorflow / "image_encoder" / "model.safetensors")
    tensors = load_file(source / "tensors.safetensors")
    save_file({name: tensors[name] for name in ("prompt_embeds", "negative_prompt_embeds")}, text)
    return colorflow, sd15, text


def _config(path: Path, config: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config))


def small_tokenizer(folder: Path, prompt: str = "manga") -> None:
    """vocab.json and merges.txt that know one word, and the two tokens that stand around it."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = sorted(set(prompt))
    pieces = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges = []
    joined = prompt[0]
    for i, letter in enumerate(prompt[1:], start=2):
        end = "</w>" if i == len(prompt) else ""
        merges.append(f"{joined} {letter}{end}")
        joined += letter + end
        pieces.append(joined)
    words = [*dict.fromkeys(pieces), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    ends = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    _config(folder / "tokenizer_config.json", ends | {"pad_token": "<|endoftext|>", "model_max_length": 77})


def text_encoder(folder: Path, config: dict[str, Any], words: int) -> None:
    """A CLIP text encoder of random weights, with the released names (text_model. before each)."""
    from transformers import CLIPTextConfig, CLIPTextModel

    ends = {"bos_token_id": words - 2, "eos_token_id": words - 1}
    full = CLIPTextConfig(**config, vocab_size=words, max_position_embeddings=77, **ends)
    _config(folder / "config.json", full.to_dict())
    torch.manual_seed(2)
    state = CLIPTextModel(full).state_dict()
    named = {key if key.startswith("text_model.") else f"text_model.{key}": value for key, value in state.items()}
    save_file(named, folder / "model.safetensors")


def full_size(root: Path) -> tuple[Path, Path]:
    """The released layout at full size with random weights, every tensor of golden/checkpoint_keys.json."""
    from colorflow_export.modules import ColorVAE, Embedder

    keys = json.loads((GOLDEN / "checkpoint_keys.json").read_text())
    colorflow, sd15 = root / "colorflow", root / "sd15"
    noise = torch.Generator().manual_seed(0)
    for folder, config in (
        (colorflow / "GraySD", GUIDER),
        (colorflow / "image_encoder", CLIP),
        (sd15 / "unet", UNET),
        (sd15 / "vae", VAE),
    ):
        _config(folder / "config.json", config)
    pickled = {"diffusion_pytorch_model": "colorguider_sd_5ch", "unet_lora": "unet_lora_r64"}
    for name, key in (pickled | {"MultiResNetModel": "MultiResNetModel"}).items():
        torch.save(_random(keys[key], noise), colorflow / "GraySD" / f"{name}.bin")
    save_file(_random(keys["unet_sd15"], noise), sd15 / "unet" / "diffusion_pytorch_model.safetensors")
    with torch.device("meta"):
        vae, clip = ColorVAE.create(VAE), Embedder(CLIP).tower
    save_file(_random(_shapes(vae), noise), sd15 / "vae" / "diffusion_pytorch_model.safetensors")
    save_file(_random(_shapes(clip), noise), colorflow / "image_encoder" / "model.safetensors")
    small_tokenizer(sd15 / "tokenizer")
    words = len(json.loads((sd15 / "tokenizer" / "vocab.json").read_text()))
    text_encoder(sd15 / "text_encoder", TEXT, words)
    return colorflow, sd15


def _shapes(module: torch.nn.Module) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in module.state_dict().items()}


def _random(shapes: dict[str, list[int]], noise: torch.Generator) -> dict[str, Tensor]:
    """Weights that keep the size of what passes through them; norms near 1, variances above 0."""
    made = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            made[name] = torch.tensor(1000)
            continue
        tensor = torch.empty(shape).normal_(generator=noise)
        fan_in = max(1, tensor[0].numel()) if tensor.ndim > 1 else 0
        if fan_in:
            tensor.mul_(0.8 * fan_in**-0.5)
        elif name.endswith("running_var") or (("norm" in name or ".bn" in name) and name.endswith("weight")):
            tensor.mul_(0.05).add_(1)
        else:
            tensor.mul_(0.02)
        made[name] = tensor
    return made


if __name__ == "__main__":
    print(*full_size(Path(sys.argv[1])))
