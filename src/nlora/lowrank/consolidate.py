"""One update made of many: per entry the one of largest magnitude, or a fold of their rank."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nlora.lowrank.factors import Factors, concatenate, recompress, svd

NEGLIGIBLE = 1e-6
"""Relative to the largest, a singular value whose direction counts as none."""


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


@torch.no_grad()
def folded(shared: Factors, update: Factors, t: int) -> Factors:
    """Co_t of Co_{t−1} and ΔW_t, of the rank of Co_{t−1} (CoDe-LoRA, arXiv:2610.08312).

        Co_t = rank_r(√((t−1)/t)·Co_{t−1} + 1/√t·(I − U·Uᵀ)·ΔW_t)

    with U (out, ≤ r) the column space of Co_{t−1} and rank_r the truncated singular value
    decomposition.
    """
    A, B, scaling = update
    U, S, _ = svd(shared)
    U = U[:, float(S[0]) * NEGLIGIBLE < S].to(B)
    new = Factors(A, B - U @ (U.T @ B), scaling / t**0.5)
    old = shared._replace(scaling=shared.scaling * ((t - 1) / t) ** 0.5)
    return recompress(concatenate([old, new]), len(shared.A))[0]
