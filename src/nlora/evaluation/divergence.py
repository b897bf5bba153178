"""How far apart two models are that read the same tokens: KL(p ‖ q) of what comes next."""

import torch
from torch import Tensor

ROWS = 256
"""Rows that are taken to float64 at once."""


def divergences(before: Tensor, after: Tensor) -> Tensor:
    """KL(before ‖ after) in nats of each of n distributions, (n,), computed in float64.

    Both are logits (n, vocabulary). What `before` gives no probability adds nothing.
    """
    parts = [_divergences(b, a) for b, a in zip(before.split(ROWS), after.split(ROWS), strict=True)]
    return torch.cat(parts) if parts else before.new_zeros(0, dtype=torch.float64)


def _divergences(before: Tensor, after: Tensor) -> Tensor:
    p, q = before.double().log_softmax(-1), after.double().log_softmax(-1)
    return torch.where(p.isneginf(), 0.0, p.exp() * (p - q)).sum(-1)
