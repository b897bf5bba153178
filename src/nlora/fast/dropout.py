"""Dropout whose mask costs less on CPUs, where PyTorch's takes a tenth of a LoRA training step.

Models that have dropout of their own (T5) spend another eighth of a step on it.
"""

from typing import Any

import torch
from torch import Tensor, nn

_LEVELS = 1 << 16


class Dropout(nn.Module):
    """Dropout by 16 random bits per entry: the rate is rounded to 1/65536, the scaling to match."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """x in evaluation; in training each entry is 0, or x/(1 − p)."""
        if not self.training or x.device.type not in ("cpu", "meta"):
            return nn.functional.dropout(x, self.p, self.training)
        return x * kept(x, self.p).to(x.dtype).mul_(scale(self.p))


def kept(x: Tensor, p: float) -> Tensor:
    """Which entries of a tensor in main memory stay at the rate `p`: a random mask of its shape."""
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device).random_(
        -(2**63), None
    )
    return words.view(torch.int16)[: x.numel()].view(x.shape) >= round(p * _LEVELS) - _LEVELS // 2


def scale(p: float) -> float:
    """What those entries are multiplied by, so that the mean stays."""
    return _LEVELS / (_LEVELS - round(p * _LEVELS))


def use_quick_dropout(model: Any) -> None:
    """Let a model on a CPU drop by `Dropout` in all of its layers."""
    if model.device.type not in ("cpu", "meta"):
        return
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout and child.p:
                setattr(parent, name, Dropout(child.p).train(child.training))
