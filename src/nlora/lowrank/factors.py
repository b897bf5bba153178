"""Low-rank updates as factor pairs, in PEFT's layout.

A is (r, in), B is (out, r), the update is ΔW = scaling · B @ A, (out, in). The paper writes the
transposes: its A·B, (in, out), is ΔWᵀ here.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nlora.errors import NloraError


class Factors(NamedTuple):
    """One matrix' update: ΔW = scaling · B @ A with A (r, in) and B (out, r)."""

    A: Tensor
    B: Tensor
    scaling: float

    def delta(self) -> Tensor:
        """ΔW, (out, in), in the factors' dtype."""
        return self.scaling * (self.B @ self.A)


class Svd(NamedTuple):
    """ΔW = U @ diag(S) @ Vᵀ with U (out, k), S (k,) descending, V (in, k); k = min(r, out, in)."""

    U: Tensor
    S: Tensor
    V: Tensor


def check(factors: Factors, name: str = "the factors", entries: bool = True) -> None:
    """Raise NloraError, naming them, unless they are two finite real matrices of one rank.

    Without `entries` only what is known of them is looked at, which costs no time.
    """
    for letter, factor in (("A", factors.A), ("B", factors.B)):
        if not factor.dtype.is_floating_point:
            raise NloraError(f"{name}: {letter} is {factor.dtype}; floating point is needed")
        if factor.ndim != 2 or 0 in factor.shape:
            raise NloraError(f"{name}: {letter} has shape {list(factor.shape)}; not a matrix")
        if entries and not bool(torch.isfinite(factor).all()):
            raise NloraError(f"{name}: {letter} has entries that are NaN or infinite")
    if factors.A.dtype != factors.B.dtype:
        raise NloraError(
            f"{name}: A is {factors.A.dtype}, B is {factors.B.dtype}; not of one dtype"
        )
    if factors.A.shape[0] != factors.B.shape[1]:
        raise NloraError(
            f"{name}: the ranks differ, A {list(factors.A.shape)} has {factors.A.shape[0]} rows "
            f"and B {list(factors.B.shape)} has {factors.B.shape[1]} columns"
        )
    if not math.isfinite(factors.scaling):
        raise NloraError(f"{name}: the scaling is {factors.scaling}")


def check_same_matrix(updates: Sequence[Factors]) -> tuple[int, int]:
    """(out, in) of the one matrix that all these update. Raises NloraError as `check` does."""
    if not updates:
        raise NloraError("at least one update is needed")
    shapes = []
    for i, update in enumerate(updates):
        check(update, f"update {i + 1}")
        shapes.append((update.B.shape[0], update.A.shape[1]))
        if shapes[i] != shapes[0]:
            raise NloraError(
                f"update {i + 1} is {shapes[i]}, update 1 is {shapes[0]}: not of one matrix"
            )
    return shapes[0]


def concatenate(pairs: Sequence[Factors]) -> Factors:
    """One factor pair for the sum of updates: ranks add up, scalings move into B.

    Σ s_i B_i A_i = [s_1 B_1 … s_n B_n] @ [A_1; …; A_n], exactly.
    """
    A = torch.cat([p.A for p in pairs], dim=0)
    B = torch.cat([p.scaling * p.B for p in pairs], dim=1)
    return Factors(A, B, 1.0)


def svd(factors: Factors) -> Svd:
    """The singular value decomposition of ΔW, scaling included, in float64; ΔW is never formed.

    B = Q_b R_b and Aᵀ = Q_a R_a; the singular values of B @ A are those of the small R_b R_aᵀ.
    """
    Qb, Rb = torch.linalg.qr(factors.B.double())  # (out, k_b), (k_b, r)
    Qa, Ra = torch.linalg.qr(factors.A.double().T)  # (in, k_a), (k_a, r)
    U, S, Vh = torch.linalg.svd(Rb @ Ra.T, full_matrices=False)  # (k_b, k_a)
    left = Qb @ U
    return Svd(-left if factors.scaling < 0 else left, abs(factors.scaling) * S, Qa @ Vh.T)


def recompress(factors: Factors, rank: int) -> tuple[Factors, float]:
    """The best update of at most `rank`, and its relative error in the Frobenius norm.

    The largest `rank` singular values of B @ A are kept (Eckart-Young); computed in float64.
    """
    if factors.A.shape[0] <= rank:
        return factors, 0.0
    U, S, V = svd(factors._replace(scaling=1.0))
    root = S[:rank].sqrt()
    B = U[:, :rank] * root  # (out, rank)
    A = root[:, None] * V[:, :rank].T  # (rank, in)
    total = S.square().sum().sqrt()
    error = float(S[rank:].square().sum().sqrt() / total) if total > 0 else 0.0
    dtype = factors.A.dtype
    return Factors(A.to(dtype), B.to(dtype), factors.scaling), error
