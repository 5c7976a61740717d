"""The denoising U-Net of SD 1.5 and the Colorization Guider, and how one is injected into the other.

Both are built on diffusers' UNet2DConditionModel as a container of blocks, so that state-dict names are the
released ones; its own forward has no injection into the up blocks, so they are walked here (facts section 2).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

# Constructor arguments of UNet2DConditionModel that a pack may set (pack.toml [modules]).
UNET_ARGUMENTS = frozenset(
    {
        "block_out_channels", "down_block_types", "up_block_types", "layers_per_block", "norm_num_groups",
        "attention_head_dim", "cross_attention_dim", "in_channels", "out_channels", "flip_sin_to_cos",
        "freq_shift",
    }
)  # fmt: skip

SD15_BLOCKS = {
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}


def _container(config: dict[str, Any], *, text: bool) -> UNet2DConditionModel:
    """A UNet2DConditionModel of this config; without text its blocks keep self-attention only."""
    arguments = {key: value for key, value in config.items() if key in UNET_ARGUMENTS}
    for key, default in SD15_BLOCKS.items():
        arguments[key] = [name.replace("SelfAttn", "CrossAttn") for name in arguments.get(key, default)]
    if not text:
        # The constructor insists on a width; the layers are removed below.
        arguments["cross_attention_dim"] = 8
    container = UNet2DConditionModel(**arguments)
    if not text:
        for module in container.modules():
            if type(module).__name__ == "BasicTransformerBlock":
                module.attn2 = None
                module.norm2 = None
    return container


def _layers(block: Any) -> Iterator[tuple[nn.Module, nn.Module | None]]:
    """The (resnet, attention or None) pairs of a down or up block."""
    attentions = getattr(block, "attentions", [None] * len(block.resnets))
    yield from zip(block.resnets, attentions, strict=True)


def _layer(
    resnet: nn.Module, attention: nn.Module | None, hidden: Tensor, embedding: Tensor, text: Tensor | None
) -> Tensor:
    hidden = resnet(hidden, _as_many(embedding, hidden))
    if attention is None:
        return hidden
    return attention(hidden, encoder_hidden_states=text, return_dict=False)[0]  # type: ignore[no-any-return]


class _Taps:
    """Collects the features of one walk and adds the control of the same place, where there is one."""

    def __init__(self, controls: Sequence[Tensor] | None) -> None:
        self.controls = controls
        self.features: list[Tensor] = []

    def __call__(self, hidden: Tensor) -> Tensor:
        self.features.append(hidden)
        return hidden if self.controls is None else hidden + _as_many(self.controls[len(self.features) - 1], hidden)


def _as_many(tensor: Tensor, other: Tensor) -> Tensor:
    """The tensor; or twice, behind one another, where the other has both guidance halves and this one is for both."""
    return torch.cat([tensor, tensor]) if other.shape[0] == 2 * tensor.shape[0] else tensor


def walk(
    net: UNet2DConditionModel,
    hidden: Tensor,
    embedding: Tensor,
    text: Tensor | None,
    controls: Sequence[Tensor] | None,
) -> tuple[Tensor, list[Tensor]]:
    """Run the blocks of `net` on conv_in's output `hidden` [B,c0,h,w].

    Returns the last hidden state and the features of every tap before any addition: conv_in, each down layer
    and downsampler, mid, each up layer and upsampler. `controls` (one tensor per tap) are added at the taps;
    of conv_in's output the U-Net keeps the skip tensor *without* the addition, of all others the one with it.
    """
    tap = _Taps(controls)
    skips = [hidden]
    hidden = tap(hidden)
    for block in net.down_blocks:
        for resnet, attention in _layers(block):
            hidden = tap(_layer(resnet, attention, hidden, embedding, text))
            skips.append(hidden)
        for downsampler in block.downsamplers or ():
            hidden = tap(downsampler(hidden))
            skips.append(hidden)
    hidden = tap(_mid(net.mid_block, hidden, embedding, text))
    for block in net.up_blocks:
        for resnet, attention in _layers(block):
            joined = torch.cat([hidden, _as_many(skips.pop(), hidden)], dim=1)
            hidden = tap(_layer(resnet, attention, joined, embedding, text))
        for upsampler in block.upsamplers or ():
            hidden = tap(upsampler(hidden))
    return hidden, tap.features


def _mid(block: Any, hidden: Tensor, embedding: Tensor, text: Tensor | None) -> Tensor:
    embedding = _as_many(embedding, hidden)
    hidden = block.resnets[0](hidden, embedding)
    for attention, resnet in zip(block.attentions, block.resnets[1:], strict=True):
        hidden = attention(hidden, encoder_hidden_states=text, return_dict=False)[0]
        hidden = resnet(hidden, embedding)
    return hidden


def taps(net: UNet2DConditionModel) -> list[tuple[int, int]]:
    """Of each tap of `walk`, in its order: its channels, and how many latents one of its cells is wide."""
    first = getattr(net, "conv_in", None) or net.conv_in_condition
    found, scale = [(first.out_channels, 1)], 1
    for block in net.down_blocks:
        found += [(resnet.out_channels, scale) for resnet in block.resnets]
        for sampler in block.downsamplers or ():
            scale *= 2
            found.append((sampler.out_channels, scale))
    found.append((net.mid_block.resnets[-1].out_channels, scale))
    for block in net.up_blocks:
        found += [(resnet.out_channels, scale) for resnet in block.resnets]
        for sampler in block.upsamplers or ():
            scale //= 2
            found.append((sampler.out_channels, scale))
    return found


def _embedding(net: UNet2DConditionModel, timestep: Tensor, dtype: torch.dtype) -> Tensor:
    return net.time_embedding(net.time_proj(timestep).to(dtype))  # type: ignore[no-any-return]


class ColorUNet(UNet2DConditionModel):  # type: ignore[misc]
    """The base U-Net: noise prediction with the guider's features injected at every layer."""

    @classmethod
    def create(cls, config: dict[str, Any]) -> "ColorUNet":
        """Build from pack.toml's [modules] unet; `cross_attention_dim = 0`: no text cross-attention."""
        net = _container(config, text=bool(config.get("cross_attention_dim", 0)))
        net.__class__ = cls
        return net  # type: ignore[no-any-return]

    def forward(
        self, sample: Tensor, timestep: Tensor, text: Tensor | None, controls: Sequence[Tensor] | None
    ) -> Tensor:
        """sample f32[B,C,h,w], timestep i64[B], text f32[B,N,D], controls of `walk` -> f32[B,C,h,w]."""
        embedding = _embedding(self, timestep, sample.dtype)
        hidden, _ = walk(self, self.conv_in(sample), embedding, text, controls)
        return self.conv_out(self.conv_act(self.conv_norm_out(hidden)))  # type: ignore[no-any-return]


class ColorGuider(UNet2DConditionModel):  # type: ignore[misc]
    """The Colorization Guider (paper section 3.2): a textless U-Net whose taps leave by zero convolutions.

    Released names: conv_in_condition, brushnet_down_blocks, brushnet_mid_block, brushnet_up_blocks.
    """

    @classmethod
    def create(cls, config: dict[str, Any], condition_channels: int) -> "ColorGuider":
        """Build from pack.toml's [modules] guider; conv_in_condition takes C + condition_channels."""
        net = _container(config, text=False)
        net.__class__ = cls
        conv = net.conv_in
        net.conv_in_condition = nn.Conv2d(conv.in_channels + condition_channels, conv.out_channels, 3, padding=1)
        channels = [channels for channels, _ in taps(net)]
        mid = 1 + sum(len(b.resnets) + len(b.downsamplers or ()) for b in net.down_blocks)
        net.brushnet_down_blocks = nn.ModuleList(_zero_conv(c) for c in channels[:mid])
        net.brushnet_mid_block = _zero_conv(channels[mid])
        net.brushnet_up_blocks = nn.ModuleList(_zero_conv(c) for c in channels[mid + 1 :])
        del net.conv_in, net.conv_norm_out, net.conv_act, net.conv_out
        return net  # type: ignore[no-any-return]

    def load_from_unet(self, unet: UNet2DConditionModel) -> None:
        """Start from a base U-Net: blocks of the same name; conv_in for the noise, zero for the condition."""
        own = self.state_dict()
        shared = {k: v for k, v in unet.state_dict().items() if k in own and v.shape == own[k].shape}
        self.load_state_dict(shared, strict=False)
        with torch.no_grad():
            self.conv_in_condition.weight.zero_()
            self.conv_in_condition.weight[:, : unet.conv_in.in_channels] = unet.conv_in.weight
            self.conv_in_condition.bias.copy_(unet.conv_in.bias)

    def forward(self, sample: Tensor, timestep: Tensor, condition: Tensor) -> list[Tensor]:
        """sample f32[B,C,h,w], timestep i64[B], condition f32[B,K,h,w] -> one control per tap of `walk`."""
        embedding = _embedding(self, timestep, sample.dtype)
        hidden = self.conv_in_condition(torch.cat([sample, condition], dim=1))
        _, features = walk(self, hidden, embedding, None, None)
        return [conv(feature) for conv, feature in zip(self.zero_convs(), features, strict=True)]

    def zero_convs(self) -> list[nn.Conv2d]:
        """The convolutions by which the taps leave, in the order of `walk`."""
        return [*self.brushnet_down_blocks, self.brushnet_mid_block, *self.brushnet_up_blocks]


def _zero_conv(channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels, channels, 1)
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


def fold_lora(net: nn.Module, lora: dict[str, Tensor], alpha: float) -> None:
    """Add a LoRA (peft names `<layer>.lora_A.default.weight`, `.lora_B.`) into `net`: W += alpha/rank B A.

    Raises ValueError if a layer is unknown, a half is missing, or a shape does not fit.
    """
    parameters = dict(net.named_parameters())
    with torch.no_grad():
        for layer in sorted({key.split(".lora_")[0] for key in lora}):
            down, up = (lora.get(f"{layer}.lora_{half}.default.weight") for half in "AB")
            weight = parameters.get(f"{layer}.weight")
            if down is None or up is None or weight is None:
                raise ValueError(f"LoRA layer {layer}: expected lora_A, lora_B and a layer of this name in the U-Net")
            if up.shape[0] != weight.shape[0] or down.shape[1] != weight.shape[1] or up.shape[1] != down.shape[0]:
                raise ValueError(f"LoRA layer {layer}: A {[*down.shape]}, B {[*up.shape]} do not fit {[*weight.shape]}")
            weight.add_((alpha / down.shape[0]) * (up.to(weight.dtype) @ down.to(weight.dtype)))
