"""A start for the guider: its first attention compares luminance and fetches chroma, before anything is learned.

Matching by attention is what takes long to emerge (benchmarks/LOG.md). The features it needs are in the condition, so
they are led through the first layers unchanged, and the first attention layer is set to what a colouriser does by hand:
look in the references for the same gray, and take its colour. Training begins there instead of finding it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from colorflow_export.modules import ColorGuider
from colorflow_export.train.config import LUMINANCE_PLANES

GAINS = (1.2, 1.6, 2.0, 2.4)  # one per head: from a wide look to a narrow one
MASK_GAIN = 3.5
FETCHED = 3  # luma and two chromas
FREE = slice(16, 16 + FETCHED * len(GAINS))
QUIET = 0.1  # how loud the random branches beside the led features are


def start_matching(guider: ColorGuider) -> None:
    """Set the guider's first layers. The condition is latents (luma, 2 chromas, dark), mask, luminance planes."""
    noise = guider.conv_in_condition.in_channels - 5 - LUMINANCE_PLANES
    planes = [noise + 5 + i for i in range(LUMINANCE_PLANES)]
    led = [*planes, noise, noise + 1, noise + 2, noise + 3, noise + 4]
    with torch.no_grad():
        _lead(guider.conv_in_condition, led)
        narrow, wide = guider.down_blocks[0], guider.down_blocks[1]
        _quiet(narrow.resnets[0])
        _lead(narrow.downsamplers[0].conv, list(range(len(led))), box=True)
        _quiet(wide.resnets[0])
        _lead(wide.resnets[0].conv_shortcut, list(range(len(led))))
        for conv in (wide.resnets[0].conv_shortcut, wide.resnets[0].conv2):
            conv.weight[FREE] = 0  # where the fetched colours will stand
            conv.bias[FREE] = 0
        _compare(wide.attentions[0])


def _lead(conv: nn.Conv2d, sources: list[int], *, box: bool = False) -> None:
    """Output channel i is input channel sources[i] (its 3x3 mean with `box`); the others stay as they are."""
    weight = conv.weight
    weight[: len(sources)] = 0
    middle = conv.kernel_size[0] // 2
    for i, source in enumerate(sources):
        if box:
            weight[i, source] = 1 / weight[i, source].numel()
        else:
            weight[i, source, middle, middle] = 1
    if conv.bias is not None:
        conv.bias[: len(sources)] = 0


def _quiet(resnet: Any) -> None:
    resnet.conv2.weight.mul_(QUIET)


def _compare(attention: Any) -> None:
    """Heads whose logits grow with equal luminance planes, over the references, and whose values are their colours."""
    block = attention.transformer_blocks[0]
    for conv in (attention.proj_in, attention.proj_out):
        nn.init.dirac_(conv.weight)
        nn.init.zeros_(conv.bias)
    attention.proj_in.weight[FREE] = 0
    constant = block.norm1.weight.numel() - 1
    block.norm1.weight[constant], block.norm1.bias[constant] = 0.0, 1.0
    layer = block.attn1
    for linear in (layer.to_q, layer.to_k, layer.to_v, layer.to_out[0]):
        linear.weight.mul_(QUIET)
    layer.to_out[0].bias.zero_()
    size = layer.to_q.weight.shape[0] // layer.heads
    for head in range(layer.heads):
        _head(layer, head * size, GAINS[head % len(GAINS)], constant, target=FREE.start + FETCHED * head)
    block.ff.net[2].weight.mul_(QUIET)


def _head(layer: Any, first: int, gain: float, constant: int, target: int) -> None:
    query, key, value, out = (_weight(layer, name) for name in ("to_q", "to_k", "to_v", "to_out.0"))
    for weight in (query, key, value):
        weight[first : first + LUMINANCE_PLANES + 1] = 0
    for i in range(LUMINANCE_PLANES):
        query[first + i, i] = key[first + i, i] = gain
    luma, mask = LUMINANCE_PLANES, LUMINANCE_PLANES + 4
    query[first + LUMINANCE_PLANES, constant] = key[first + LUMINANCE_PLANES, mask] = MASK_GAIN
    for i in range(FETCHED):
        value[first + i, luma + i] = 1
        out[target + i] = 0
        out[target + i, first + i] = 1


def _weight(layer: Any, name: str) -> Tensor:
    weight: Tensor = layer.get_submodule(name).weight
    return weight
