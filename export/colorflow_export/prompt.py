"""The constant prompt as tensors: SD 1.5's text encoder is run once, when a pack is made, and never again."""

from pathlib import Path

import torch
from torch import Tensor

from colorflow_export.checkpoints import read_tensors
from colorflow_export.released import read_checkpoint
from colorflow_rt.errors import PackError

PROMPTS = {"prompt_embeds": "manga", "negative_prompt_embeds": ""}


def prompt_embeddings(sd15: Path, given: Path | None) -> dict[str, Tensor]:
    """`text.prompt_embeds` and `text.negative_prompt_embeds`, f32[N,D], of a file or of SD 1.5's text encoder."""
    found = read_tensors(given) if given is not None else _encode(sd15)
    shapes = {name: tuple(found[name].squeeze(0).shape) for name in PROMPTS if name in found}
    if len(shapes) != 2 or len(set(shapes.values())) != 1 or len(next(iter(shapes.values()))) != 2:
        raise PackError(
            f"{given} has {shapes}, expected prompt_embeds and negative_prompt_embeds of [tokens, channels]"
        )
    return {f"text.{name}": found[name].squeeze(0).float().contiguous() for name in PROMPTS}


@torch.no_grad()
def _encode(sd15: Path) -> dict[str, Tensor]:
    """Through tokenizer/ and text_encoder/, padded to the encoder's length as SD 1.5 is."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    for folder in ("tokenizer", "text_encoder"):
        if not (sd15 / folder).is_dir():
            raise PackError(
                f"{sd15} has no {folder}/, which makes the prompt's embedding: get it, or give --text FILE with "
                "prompt_embeds and negative_prompt_embeds"
            )
    try:
        tokenizer = CLIPTokenizer.from_pretrained(sd15 / "tokenizer", local_files_only=True)
        model = CLIPTextModel(CLIPTextConfig.from_pretrained(sd15 / "text_encoder", local_files_only=True))
    except Exception as error:  # transformers raises many unrelated types
        text = " ".join(str(error).split())
        raise PackError(f"{sd15}: tokenizer or text encoder cannot be read ({text:.200}): get them again") from error
    _load(model, sd15)
    length = model.config.max_position_embeddings
    embeds = {}
    for name, prompt in PROMPTS.items():
        ids = tokenizer(prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
        embeds[name] = model.eval()(ids).last_hidden_state[0]
    return embeds


def _load(model: torch.nn.Module, sd15: Path) -> None:
    """The released names start with text_model.; those of newer transformers may not."""
    from colorflow_export.released import check_keys

    prefix = "text_model."
    own = next(iter(model.state_dict())).startswith(prefix)
    aliases = () if own else ((prefix, ""),)
    found = read_checkpoint(sd15 / "text_encoder", "SD 1.5's text encoder", aliases)
    check_keys(found, model)
    model.load_state_dict({name: found.tensor(name) for name in found.shapes})
