"""Attention on CPUs, where PyTorch's fused kernel is slow in its backward pass.

Plain matrix products with the groups of grouped queries together, as long as the scores are few; a
long sequence goes to the fused kernel, whose memory does not grow with its square. In bf16 the
scores are rounded before the softmax, as in Transformers' own eager attention. That of T5, which
has a bias by position, is in `fast.biased`.
"""

from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask

from nlora.backbones.hardware import device
from nlora.fast.biased import attend_biased

NAME = "nlora_plain"
MOST_SCORES = 2**22
"""Of one layer: 8 MB in bf16, kept until its backward pass."""


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """softmax(Q·Kᵀ·scaling + bias)·V for (B, heads, S, d): (B, S, heads, d), weights dropped.

    `attention_mask` (B, 1, S, T) is added to the scores.
    """
    rows, heads, length, width = query.shape
    groups, longest = key.shape[1:3]
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    unmasked = attention_mask is None and causal and length > 1
    if position_bias is not None and not unmasked and heads == groups:
        scale = width**-0.5 if scaling is None else scaling
        out = attend_biased(query, key, value, attention_mask, position_bias, scale, dropout)
        return out.transpose(1, 2).contiguous(), None
    large = rows * heads * length * longest > MOST_SCORES
    if unmasked or dropout or position_bias is not None or large:
        return sdpa_attention_forward(
            module,
            query,
            key,
            value,
            attention_mask,
            dropout=dropout,
            scaling=scaling,
            is_causal=is_causal,
            position_bias=position_bias,
            **kwargs,
        )
    together = (query * (width**-0.5 if scaling is None else scaling)).reshape(
        rows, groups, -1, width
    )
    scores = (together @ key.transpose(2, 3)).view(rows, heads, length, longest)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(-1).view(rows, groups, -1, longest)
    out = (weights @ value).view(rows, heads, length, -1)
    return out.transpose(1, 2).contiguous(), None


def use_plain_attention(model: Any) -> None:
    """Let a model, or its shell, attend by `attend` where models are on a CPU, if it can be
    exchanged.

    Models that choose which keys to attend to put that into the mask of Transformers' own alone.
    """
    config = model.config.get_text_config()
    chooses = any(getattr(config, name, None) for name in ("index_topk", "index_topk_blocks"))
    if device().type != "cpu" or chooses:
        return
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, eager_mask)
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(NAME)
