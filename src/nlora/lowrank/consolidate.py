"""One update made of many: the sum, or per entry the one of largest magnitude."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nlora.lowrank.factors import Factors


@torch.no_grad()
def largest(updates: Sequence[Factors]) -> Tensor:
    """Per entry the ΔW_i of largest magnitude, (out, in), the earliest of equal ones.

    Where no two updates meet it is their sum. Unlike the sum it is not of low rank, so it is dense;
    two matrices are held at a time however many updates there are.
    """
    kept = updates[0].delta()
    for update in updates[1:]:
        delta = update.delta()
        kept = torch.where(delta.abs() > kept.abs(), delta, kept)
    return kept
