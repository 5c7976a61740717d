"""Attention that is told where to look: the auxiliary loss of the guider's training.

Left to the loss on latents, matching a page to its references takes tens of thousands of samples to emerge
(benchmarks/LOG.md): the gradient reaches queries and keys only through what the values happen to carry. In training the
true colours are known, so each attention layer of the guider can be told directly: of all reference tokens, look at
those that have the colour of this one. Nothing of this remains in the trained model.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from colorflow_export.modules import ColorGuider

CHROMA = slice(1, 3)  # of the latents (stages.latent_targets)
LEVELS = (2, 4)  # latents a token: the guider attends at its levels 1 and 2
UNLIKE = 0.5  # the squared chroma distance, in latents, at which a colour is another
LEAST = 0.01  # share of attention below which a miss costs no more


@dataclass(frozen=True)
class _Targets:
    """Where a layer should look: page i64[P] and reference i64[R] tokens, likeness f32[B,1,P,R] of their colours, 0
    to 1, and weight f32[B,1,P]."""

    page: Tensor
    reference: Tensor
    likeness: Tensor
    weight: Tensor


class AttentionLoss:
    """Watches the self-attention of a guider; `loss()` is how little of it falls on the right colour.

    The logarithm of the share matters: the share itself has next to no gradient as long as it is small.
    """

    def __init__(self, guider: ColorGuider) -> None:
        self.targets: dict[int, _Targets] = {}  # by the number of tokens of a layer
        self.terms: list[Tensor] = []
        for name, module in guider.named_modules():
            if name.endswith(".attn1"):
                module.set_processor(self._attend)

    def look_at(self, latents: Tensor, mask: Tensor) -> None:
        """latents f32[B,4,h,w]: true colours of the canvas; mask f32[B,1,h,w]: 1 over references, 0 over the page."""
        self.terms.clear()
        self.targets.clear()
        for halving in LEVELS:
            chroma = F.avg_pool2d(latents[:, CHROMA], halving)
            spread = (F.avg_pool2d(latents[:, CHROMA].square(), halving) - chroma.square()).sum(1).flatten(1)
            reference = F.avg_pool2d(mask[:1], halving).flatten() > 0.5
            page = (~reference).nonzero().flatten()
            some = page[torch.randperm(len(page), device=page.device)[: len(page) // 3]]
            tokens = chroma.flatten(2).transpose(1, 2)
            distance = torch.cdist(tokens[:, some], tokens[:, reference]).square()
            likeness = (1 - distance / UNLIKE).clamp(min=0.0)
            # Tokens that mix several colours, or whose colour no reference has, have no one place to look at.
            weight = likeness.amax(dim=2) / (1 + 10 * spread[:, some])
            self.targets[len(reference)] = _Targets(
                some, reference.nonzero().flatten(), likeness.unsqueeze(1), weight.unsqueeze(1)
            )

    def loss(self) -> Tensor:
        """Mean over layers, heads and page tokens."""
        return torch.stack(self.terms).mean()

    def _attend(self, attention: Any, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        query, key, value = (
            to(hidden_states).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
            for to in (attention.to_q, attention.to_k, attention.to_v)
        )
        if torch.is_grad_enabled():
            self.terms.append(self._term(query, key))
        hidden = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return attention.to_out[0](hidden)  # type: ignore[no-any-return]

    def _term(self, query: Tensor, key: Tensor) -> Tensor:
        targets = self.targets[query.shape[2]]
        logits = query[:, :, targets.page] @ key[:, :, targets.reference].transpose(2, 3) / query.shape[-1] ** 0.5
        right = (logits.float().softmax(dim=-1) * targets.likeness).sum(-1)
        weight = targets.weight.expand_as(right)
        return torch.sum(-torch.log(right + LEAST) * weight) / weight.sum()
