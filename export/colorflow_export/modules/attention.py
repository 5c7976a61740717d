"""Attention as engines want it: the constant prompt's keys and values ready made, in a form that a backend fuses."""

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional


def fused_attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """query [B,N,H*D], key and value [B,M,H*D] -> [B,N,H*D]: one node in ONNX, one of ONNX Runtime's own."""
    if torch.compiler.is_exporting():
        return torch.onnx.ops.symbolic(
            "com.microsoft::MultiHeadAttention",
            (query, key, value),
            attrs={"num_heads": heads},
            dtype=query.dtype,
            shape=query.shape,
            version=1,
        )
    queries, keys, values = (_heads(tensor, heads).transpose(1, 2) for tensor in (query, key, value))
    return functional.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)


def explicit_attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """The same as MatMul, Softmax, MatMul over [B,H,N,D], which TensorRT makes one kernel of.

    The query is scaled before the first product, so that float16 scores stay small.
    """
    scale = (query.shape[-1] // heads) ** -0.5
    queries = _heads(query * scale, heads).transpose(1, 2)
    keys = _heads(key, heads).permute(0, 2, 3, 1)
    values = _heads(value, heads).transpose(1, 2)
    return (torch.softmax(queries @ keys, dim=-1) @ values).transpose(1, 2).flatten(2)


def _heads(tensor: Tensor, heads: int) -> Tensor:
    """[B,N,H*D] -> [B,N,H,D]."""
    return tensor.reshape(*tensor.shape[:2], heads, tensor.shape[2] // heads)


class EngineAttention(nn.Module):
    """A processor of diffusers' Attention. With `prompts`, keys and values [P,N,C] of P prompts are constants.

    The batch is then P prompts times the samples, all samples of the first prompt first.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, form: str, prompts: int = 0, tokens: int = 0, channels: int = 0) -> None:
        super().__init__()
        self._attend = fused_attention if form == "fused" else explicit_attention
        self.prompts = prompts
        if prompts:
            self.register_buffer("keys", torch.empty(prompts, tokens, channels))
            self.register_buffer("values", torch.empty(prompts, tokens, channels))

    def forward(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """hidden_states [B,N,C] -> [B,N,C]; the other arguments are those of diffusers and are not used."""
        if self.prompts:
            samples = hidden_states.shape[0] // self.prompts
            key, value = (_repeated(tensor, samples) for tensor in (self.keys, self.values))
        else:
            key, value = attn.to_k(hidden_states), attn.to_v(hidden_states)
        found = self._attend(attn.to_q(hidden_states), key, value, attn.heads)
        return attn.to_out[0](found)  # type: ignore[no-any-return]


def _repeated(tensor: Tensor, samples: int) -> Tensor:
    return tensor if samples == 1 else tensor.repeat_interleave(samples, dim=0)


def use_engine_attention(net: UNet2DConditionModel, form: str, prompts: int, tokens: int) -> None:
    """Give every attention of `net` its form; over a constant prompt those named attn2 keep no to_k and to_v."""
    for name, module in list(net.named_modules()):
        if name.endswith(".attn1"):
            module.set_processor(EngineAttention(form))
        if name.endswith(".attn2"):
            module.set_processor(EngineAttention(form, prompts, tokens, module.to_k.out_features))
            del module.to_k, module.to_v
