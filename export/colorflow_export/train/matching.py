"""A start for the guider: attention that compares luminance and fetches colours, before anything is learned.

Matching by attention is what takes long to emerge (benchmarks/LOG.md). The features it needs are in the condition, so
they are led through the first layers unchanged, and two attention layers at level 1, on the way down and on the way up,
are set to what a colouriser does by hand: look in the references for the same grays, and take their colour. Averaged
over a token, the luminance planes are a smoothed histogram of its grays, and their product compares histograms.
Training begins there instead of finding it.

At level 1 every led feature stands beside its negative: the norms before an attention subtract means and divide by
spreads, which would otherwise make some keys louder than others, and their colours win everywhere.
"""

from typing import Any

import torch
from torch import Tensor, nn

from colorflow_export.modules import ColorGuider
from colorflow_export.train.config import LUMINANCE_PLANES

OF_MEAN, OF_FILL = LUMINANCE_PLANES // 8, 3 * LUMINANCE_PLANES // 8  # octaves of a cell's mean, of its upper quartile
OCTAVES = (*range(OF_MEAN), *range(OF_MEAN), *range(OF_FILL), *range(OF_FILL))  # sines and cosines: one for each plane
SHARPNESS = (10.0, 6.0, 3.0, 2.0, 1.0, 0.5)  # of each octave: a share of e^-1 is lost about 6 gray levels away
HEADS = ((0.5, 1.0), (1.0, 0.3))  # how much each head makes of a cell's mean, and of its upper quartile
SPREAD = 2.2  # by how much the norms before an attention spread the planes
PREFERENCE = 3.0  # logit by which references are looked at rather than the page
LUMA, MASK = LUMINANCE_PLANES, LUMINANCE_PLANES + 3  # where the led features stand: planes, luma, 2 chromas, mask
LED = LUMINANCE_PLANES + 4
FETCHED = 3  # luma and two chromas
DOWN, UP = (range(2 * LED + 3 * len(HEADS) * i, 2 * LED + 3 * len(HEADS) * (i + 1)) for i in (0, 1))
QUIET = 0.1  # how loud the random branches beside the led features are
COLOR = 0.3  # and how loud their colours are to the norms


def start_matching(guider: ColorGuider) -> None:
    """Set the guider's first layers. The condition is latents (luma, 2 chromas, dark), mask, luminance planes."""
    latents = guider.conv_in_condition.in_channels - LUMINANCE_PLANES - 5
    led = [*(latents + 5 + i for i in range(LUMINANCE_PLANES)), latents, latents + 1, latents + 2, latents + 4]
    first, down, up = guider.down_blocks[0], guider.down_blocks[1], guider.up_blocks[1]
    with torch.no_grad():
        _lead(guider.conv_in_condition, led)
        _quiet(first.resnets[0])
        _halve(first.downsamplers[0].conv)
        _quiet(down.resnets[0])
        _pair(down.resnets[0].conv_shortcut)
        _clear(down.resnets[0], DOWN)
        _compare(down.attentions[0], DOWN)
        _quiet(up.resnets[0])
        above = up.resnets[0].conv_shortcut.in_channels - down.resnets[0].out_channels
        _lead(up.resnets[0].conv_shortcut, [above + i for i in range(DOWN.stop)])
        _clear(up.resnets[0], UP)
        _compare(up.attentions[0], UP)


def _lead(conv: nn.Conv2d, sources: list[int]) -> None:
    """Output channel i is input channel sources[i]; the others stay as they are."""
    _silence(conv, range(len(sources)))
    middle = conv.kernel_size[0] // 2
    for i, source in enumerate(sources):
        conv.weight[i, source, middle, middle] = 1


def _halve(conv: nn.Conv2d) -> None:
    """The led channels at half the size: means of 2x2 (the kernel is 3x3, with stride 2)."""
    _silence(conv, range(LED))
    for i in range(LED):
        conv.weight[i, i, 1:, 1:] = 0.25


def _pair(conv: nn.Conv2d) -> None:
    """Output channels 2i and 2i + 1 are led channel i and its negative."""
    _silence(conv, range(2 * LED))
    for i in range(LED):
        conv.weight[2 * i, i, 0, 0], conv.weight[2 * i + 1, i, 0, 0] = 1, -1


def _silence(layer: nn.Conv2d | nn.Linear, channels: range) -> None:
    layer.weight[channels.start : channels.stop] = 0
    if layer.bias is not None:
        layer.bias[channels.start : channels.stop] = 0


def _quiet(resnet: Any) -> None:
    resnet.conv2.weight.mul_(QUIET)


def _clear(resnet: Any, target: range) -> None:
    """Nothing stands where the fetched colours will."""
    for conv in (resnet.conv_shortcut, resnet.conv2):
        _silence(conv, target)


def _compare(attention: Any, target: range) -> None:
    """Heads whose logits grow with equal luminance planes, over the references, and whose values are their colours."""
    block = attention.transformer_blocks[0]
    loud = torch.full((block.norm1.weight.numel(),), QUIET)
    loud[: 2 * LUMINANCE_PLANES], loud[2 * LUMINANCE_PLANES : 2 * LED] = 1.0, COLOR
    nn.init.dirac_(attention.proj_in.weight)
    attention.proj_in.weight.mul_(loud.view(-1, 1, 1, 1))
    attention.proj_out.weight.mul_(QUIET)
    _silence(attention.proj_out, target)
    for i in target:
        attention.proj_out.weight[i, i] = 1
    for conv in (attention.proj_in, attention.proj_out):
        nn.init.zeros_(conv.bias)
    constant = block.norm1.weight.numel() - 1
    block.norm1.weight[constant], block.norm1.bias[constant] = 0.0, 1.0
    layer = block.attn1
    for linear in (layer.to_q, layer.to_k, layer.to_v, layer.to_out[0]):
        linear.weight.mul_(QUIET)
    layer.to_out[0].bias.zero_()
    for head, shares in enumerate(HEADS):
        _head(layer, head, shares, constant, target[FETCHED * head])
    block.ff.net[2].weight.mul_(QUIET)


def _head(layer: Any, head: int, shares: tuple[float, float], constant: int, target: int) -> None:
    query, key, value, out = (_weight(layer, name) for name in ("to_q", "to_k", "to_v", "to_out.0"))
    size = query.shape[0] // layer.heads
    first, spare = head * size, head * size + LUMINANCE_PLANES
    scale = size**0.5  # attention divides by it
    for weight in (query, key, value):
        weight[first : spare + 1] = 0
    for i in range(LUMINANCE_PLANES):
        sharpness = shares[i >= 2 * OF_MEAN] * SHARPNESS[OCTAVES[i]]
        query[first + i, 2 * i] = key[first + i, 2 * i] = (sharpness * scale) ** 0.5 / SPREAD
    query[spare, constant] = key[spare, 2 * MASK] = (PREFERENCE * scale) ** 0.5
    for i in range(FETCHED):
        value[first + i, 2 * (LUMA + i)] = 1
        out[target + i] = 0
        out[target + i, first + i] = 1


def _weight(layer: Any, name: str) -> Tensor:
    weight: Tensor = layer.get_submodule(name).weight
    return weight
