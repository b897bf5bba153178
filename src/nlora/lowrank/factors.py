"""Low-rank updates as factor pairs, in PEFT's layout.

A is (r, in), B is (out, r), the update is ΔW = scaling · B @ A, (out, in). The paper writes the
transposes: its A·B, (in, out), is ΔWᵀ here.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Factors(NamedTuple):
    """One matrix' update: ΔW = scaling · B @ A with A (r, in) and B (out, r)."""

    A: Tensor
    B: Tensor
    scaling: float

    def delta(self) -> Tensor:
        """ΔW, (out, in), in the factors' dtype."""
        return self.scaling * (self.B @ self.A)


def concatenate(pairs: Sequence[Factors]) -> Factors:
    """One factor pair for the sum of updates: ranks add up, scalings move into B.

    Σ s_i B_i A_i = [s_1 B_1 … s_n B_n] @ [A_1; …; A_n], exactly.
    """
    A = torch.cat([p.A for p in pairs], dim=0)
    B = torch.cat([p.scaling * p.B for p in pairs], dim=1)
    return Factors(A, B, 1.0)


def recompress(factors: Factors, rank: int) -> tuple[Factors, float]:
    """The best update of at most `rank`, and its relative error in the Frobenius norm.

    B = Q_b R_b and Aᵀ = Q_a R_a; the singular values of B @ A are those of the small R_b R_aᵀ, of
    which the largest `rank` are kept (Eckart-Young). Computed in float64; ΔW is never formed.
    """
    if factors.A.shape[0] <= rank:
        return factors, 0.0
    Qb, Rb = torch.linalg.qr(factors.B.double())  # (out, k), (k, r)
    Qa, Ra = torch.linalg.qr(factors.A.double().T)  # (in, k'), (k', r)
    U, S, Vh = torch.linalg.svd(Rb @ Ra.T, full_matrices=False)  # (k, k')
    root = S[:rank].sqrt()
    B = (Qb @ U[:, :rank]) * root  # (out, rank)
    A = root[:, None] * (Vh[:rank] @ Qa.T)  # (rank, in)
    total = S.square().sum().sqrt()
    error = float(S[rank:].square().sum().sqrt() / total) if total > 0 else 0.0
    dtype = factors.A.dtype
    return Factors(A.to(dtype), B.to(dtype), factors.scaling), error
