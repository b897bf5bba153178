"""Attention with a position bias (T5) on CPUs, in training and without.

PyTorch has no kernel for it where weights are dropped: its fallback makes a dozen tensors of the
size of the scores and keeps four of them for the backward pass, in each layer. Here the weights are
kept, and a byte for each, and a few rows are computed at a time.
"""

from typing import Any

import torch
from torch import Tensor

from nlora.fast.dropout import kept, scale

MOST_SCORES = 2**20
"""Computed at a time: 4 MB in fp32, which caches hold."""


def attend_biased(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    bias: Tensor,
    scaling: float,
    dropout: float,
) -> Tensor:
    """dropout(softmax(Q·Kᵀ·scaling + bias + mask))·V for (B, heads, S, d): (B, heads, S, d).

    `bias` is (1 or B, heads, S, T), `mask` (B, 1, 1 or S, T) or None.
    """
    return _Biased.apply(
        query * scaling if scaling != 1 else query, key, value, mask, bias, dropout
    )


class _Biased(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        bias: Tensor,
        dropout: float,
    ) -> Tensor:
        rows, heads, length, _ = query.shape
        trains = any(ctx.needs_input_grad)
        shape = (rows, heads, length, key.shape[2])
        weights = query.new_empty(shape) if trains else None
        stays = query.new_empty(shape, dtype=torch.bool) if trains and dropout else None
        out = query.new_empty(rows, heads, length, value.shape[3])
        for part in _parts(shape):
            scores = query[part] @ key[part].transpose(2, 3)
            scores += bias if len(bias) == 1 else bias[part]
            if mask is not None:
                scores += mask if len(mask) == 1 else mask[part]
            scores = scores.softmax(-1)
            if weights is not None:
                weights[part] = scores
            if dropout:
                stay = kept(scores, dropout)
                if stays is not None:
                    stays[part] = stay
                scores = scores * stay.to(scores.dtype).mul_(scale(dropout))
            out[part] = scores @ value[part]
        ctx.save_for_backward(query, key, value, weights, stays)
        ctx.dropout, ctx.bias_rows = dropout, len(bias)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        query, key, value, weights, stays = ctx.saved_tensors
        [gradient] = gradients
        of_query, of_key, of_value = map(torch.empty_like, (query, key, value))
        of_bias = torch.zeros_like(weights[: ctx.bias_rows]) if ctx.needs_input_grad[4] else None
        for part in _parts(weights.shape):
            own, above = weights[part], gradient[part]
            of_scores = above @ value[part].transpose(2, 3)
            said = own
            if stays is not None:
                stay = stays[part].to(own.dtype).mul_(scale(ctx.dropout))
                said = own * stay
                of_scores *= stay
            of_value[part] = said.transpose(2, 3) @ above
            of_scores = own * (of_scores - (of_scores * own).sum(-1, keepdim=True))
            of_query[part] = of_scores @ key[part]
            of_key[part] = of_scores.transpose(2, 3) @ query[part]
            if of_bias is not None and ctx.bias_rows == 1:
                of_bias += of_scores.sum(0, keepdim=True)
            elif of_bias is not None:
                of_bias[part] = of_scores
        return of_query, of_key, of_value, None, of_bias, None


def _parts(shape: tuple[int, ...]) -> list[slice]:
    """Slices of the rows (first dimension) that have at most `MOST_SCORES` numbers, or one row."""
    rows, heads, length, longest = shape
    step = max(MOST_SCORES // max(heads * length * longest, 1), 1)
    return [slice(start, start + step) for start in range(0, rows, step)]
