"""The CLIP vision tower with projection: what retrieval compares."""

from typing import Any

from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection


class Embedder(nn.Module):
    """transformers' CLIPVisionModelWithProjection, as one tensor in, one tensor out."""

    def __init__(self, config: dict[str, Any]) -> None:
        """`config`: pack.toml's [modules] clip, arguments of CLIPVisionConfig."""
        super().__init__()
        self.tower = CLIPVisionModelWithProjection(CLIPVisionConfig(**config))

    def forward(self, pixel_values: Tensor) -> Tensor:
        """pixel_values f32[B,3,S,S], normalised -> image_embeds f32[B,D], not normalised."""
        return self.tower(pixel_values=pixel_values).image_embeds  # type: ignore[no-any-return]
