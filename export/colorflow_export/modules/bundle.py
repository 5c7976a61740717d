"""The networks of one model, together."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from colorflow_export.modules.embedder import Embedder
from colorflow_export.modules.fusion import FusionNet
from colorflow_export.modules.unet import ColorGuider, ColorUNet
from colorflow_export.modules.vae import ColorVAE
from colorflow_rt.pack_config import ModelConfig


@dataclass(eq=False)
class Modules:
    """The networks of a model, in eval mode without gradients, and its constant prompt.

    model: what passes between them. fusion and clip may be None for a model that is not whole (golden folders).
    prompt_embeds, negative_prompt_embeds: f32[N,D]; None for a model without text.
    """

    model: ModelConfig
    unet: ColorUNet
    guider: ColorGuider
    vae: ColorVAE
    fusion: FusionNet | None = None
    clip: Embedder | None = None
    prompt_embeds: Tensor | None = None
    negative_prompt_embeds: Tensor | None = None

    def __post_init__(self) -> None:
        for module in self.parts().values():
            module.eval().requires_grad_(False)

    @classmethod
    def create(cls, modules: Mapping[str, dict[str, Any]], model: ModelConfig, statistics: str) -> "Modules":
        """Random weights from pack.toml's [modules], [model] and pages.fusion_statistics; a prompt of zeros."""
        text = torch.zeros(model.text_tokens, model.text_dim) if model.text_tokens else None
        return cls(
            model,
            unet=ColorUNet.create(modules["unet"]),
            guider=ColorGuider.create(modules["guider"], model.condition_planes),
            vae=ColorVAE.create(modules["vae"]),
            fusion=FusionNet(modules["vae"], statistics),
            clip=Embedder(modules["clip"]),
            prompt_embeds=text,
            negative_prompt_embeds=text,
        )

    @classmethod
    def hollow(
        cls, modules: Mapping[str, dict[str, Any]], model: ModelConfig, statistics: str, dtype: torch.dtype
    ) -> "Modules":
        """As `create`, but the weights take no memory and have no values until something is loaded into them."""
        with torch.device("meta"):
            made = cls.create(modules, model, statistics)
        for part in made.parts().values():
            nn.Module.to(part, dtype)  # not diffusers' own `to`, which warns
            part.to_empty(device="cpu")  # pages that nobody has written to take no memory
        tower = made.clip.tower.vision_model.embeddings if made.clip is not None else None
        if tower is not None:
            tower.position_ids = torch.arange(tower.num_positions).expand(1, -1)  # in no state dict
        return made

    def parts(self) -> dict[str, nn.Module]:
        """The networks by part (docs/pack.md); `<part>.<state-dict key>` names a tensor of the pack."""
        parts: dict[str, nn.Module | None] = {
            "unet": self.unet,
            "guider": self.guider,
            "vae": self.vae,
            "fusion": self.fusion,
            "clip": self.clip.tower if self.clip is not None else None,
        }
        return {name: module for name, module in parts.items() if module is not None}
