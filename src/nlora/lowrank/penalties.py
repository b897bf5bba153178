"""Penalties on factor pairs: their value and, in closed form, their gradient.

Each function takes the trainable factors of all adapted matrices and returns the value, summed over
the matrices, and a gradient for every factor, in order: (value, [(∂/∂A, ∂/∂B), …]).
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from nlora.errors import NloraError
from nlora.lowrank.factors import Factors

Gradients = list[tuple[Tensor, Tensor]]
Orthogonality = Literal["entrywise", "squared"]


def l1_norm_and_grads(factors: Sequence[Factors]) -> tuple[Tensor, Gradients]:
    """Σ ‖ΔW‖₁ over the matrices (Eq. 3), scaling included, and its gradient.

    ∂/∂B = s·sign(BA)·Aᵀ and ∂/∂A = s·Bᵀ·sign(BA).
    """
    value, grads = _zero(factors), []
    for A, B, scaling in factors:
        product = B @ A  # (out, r) @ (r, in)
        sign = product.sign()
        value = value + abs(scaling) * product.abs().sum()
        grads.append((abs(scaling) * (B.T @ sign), abs(scaling) * (sign @ A.T)))
    return value, grads


def released_norm_and_grads(factors: Sequence[Factors]) -> tuple[Tensor, Gradients]:
    """What the released code penalises: Σ ‖A @ B‖₁, an r×r product without the scaling.

    It is no norm of ΔW, exists only where in = out, and is kept because the published weights
    belong to it. Raises NloraError where in ≠ out (grouped-query attention, for example).
    """
    value, grads = _zero(factors), []
    for A, B, _ in factors:
        if A.shape[1] != B.shape[0]:
            raise NloraError(
                "penalty 'released' is the r×r product A·B, which needs in = out; an adapted "
                f"matrix here has in {A.shape[1]} and out {B.shape[0]}: use penalty 'l1', or set "
                "target_modules to square matrices"
            )
        product = A @ B  # (r, in) @ (out, r), in = out
        sign = product.sign()
        value = value + product.abs().sum()
        grads.append((sign @ B.T, A.T @ sign))
    return value, grads


def overlap_and_grads(
    factors: Sequence[Factors], past: Sequence[Tensor], form: Orthogonality
) -> tuple[Tensor, Gradients]:
    """O-LoRA's overlap with the input spaces of earlier updates, and its gradient.

    `past[j]` is the A of all earlier tasks at matrix j, stacked: (R, in). With G = A_past @ Aᵀ,
    (R, r): Σ|G| ("entrywise", the released code) or ‖G‖²_F ("squared", Eq. 1).
    """
    value, grads = _zero(factors), []
    for (A, B, _), A_past in zip(factors, past, strict=True):
        overlap = A_past @ A.T  # (R, in) @ (in, r)
        if form == "entrywise":
            value = value + overlap.abs().sum()
            grad = overlap.sign().T @ A_past  # (r, R) @ (R, in)
        else:
            value = value + overlap.square().sum()
            grad = 2 * overlap.T @ A_past
        grads.append((grad, torch.zeros_like(B)))
    return value, grads


def factor_norms_and_grads(factors: Sequence[Factors]) -> tuple[Tensor, Gradients]:
    """Σ ‖A‖_F + ‖B‖_F, the second penalty of O-LoRA's released code, and its gradient."""
    value, grads = _zero(factors), []
    for A, B, _ in factors:
        norms = A.norm(), B.norm()
        value = value + norms[0] + norms[1]
        tiny = torch.finfo(A.dtype).tiny
        grads.append((A / norms[0].clamp(min=tiny), B / norms[1].clamp(min=tiny)))
    return value, grads


def _zero(factors: Sequence[Factors]) -> Tensor:
    if not factors:
        raise NloraError("a penalty needs at least one adapted matrix")
    return factors[0].A.new_zeros(())
