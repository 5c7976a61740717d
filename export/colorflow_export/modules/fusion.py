"""GSRP's fusion net: residual blocks over the encoder taps of two images (facts section 3)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from colorflow_export.modules.vae import ColorVAE, tap_channels

BLOCKS = 4


class SampleStatisticsNorm(nn.BatchNorm2d):
    """BatchNorm2d that can use each sample's own statistics, as the authors' demo does; never a batch's."""

    batch_statistics = False

    def forward(self, x: Tensor) -> Tensor:
        if self.training or not self.batch_statistics:
            return super().forward(x)
        return functional.instance_norm(x, weight=self.weight, bias=self.bias, use_input_stats=True, eps=self.eps)


class ResidualBlock(nn.Module):
    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1, bias=False)
        self.bn1 = SampleStatisticsNorm(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = SampleStatisticsNorm(out)
        self.shortcut = nn.Sequential()
        if channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, bias=False), SampleStatisticsNorm(out))

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(hidden)) + self.shortcut(x))


class FusionNet(nn.Module):
    """Four residual blocks per encoder tap: (colour tap, black-and-white tap) -> what the decoder adds."""

    def __init__(self, vae: dict[str, Any], statistics: str) -> None:
        """`vae`: pack.toml's [modules] vae. `statistics`: "batch" (each image's own) or "running"."""
        super().__init__()
        self.two_layer_resnets = nn.ModuleList()
        for taps, out in zip(*tap_channels(vae), strict=True):
            blocks = {f"block{i + 1}": ResidualBlock(2 * taps if i == 0 else out, out) for i in range(BLOCKS)}
            self.two_layer_resnets.append(nn.ModuleDict(blocks))
        self.use_statistics(statistics)

    def use_statistics(self, statistics: str) -> None:
        if statistics not in ("batch", "running"):
            raise ValueError(f"statistics is {statistics!r}, expected 'batch' or 'running'")
        for module in self.modules():
            if isinstance(module, SampleStatisticsNorm):
                module.batch_statistics = statistics == "batch"

    def forward(self, color: Sequence[Tensor], bw: Sequence[Tensor]) -> list[Tensor]:
        """Taps of the colour and of the black-and-white image -> fused taps, same order."""
        fused = []
        for blocks, c, b in zip(self.two_layer_resnets, color, bw, strict=True):
            hidden = torch.cat([c, b], dim=1)
            for block in blocks.children():
                hidden = block(hidden)
            fused.append(hidden)
        return fused


def super_resolve(vae: ColorVAE, fusion: FusionNet, color: Tensor, bw: Tensor) -> Tensor:
    """Guided super-resolution: color, bw f32[B,3,H,W] in [-1,1] -> image f32[B,3,H,W], not clamped."""
    latents, _, color_taps = vae.moments(color)
    _, _, bw_taps = vae.moments(bw)
    return vae.reconstruct(latents, fusion(color_taps, bw_taps))
