"""Penalties on factor pairs: their value and, in closed form, their gradient.

Each function takes the trainable factors of all adapted matrices and returns the value, summed over
the matrices, and a gradient for every factor, in order: (value, [(∂/∂A, ∂/∂B), …]), fp32 where the
factors are of half precision. None makes an autograd graph or forms ΔW. `lowrank.l1` has the
penalty of the paper. Factors that are no pairs, not floating or not finite are an NloraError.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from nlora.errors import NloraError
from nlora.lowrank.checks import Gradients, check_all, check_weight, checked
from nlora.lowrank.factors import Factors
from nlora.lowrank.l1 import blocked

Orthogonality = Literal["entrywise", "squared"]
Rate = Tensor | float


@checked
def released_norm_and_grads(factors: Sequence[Factors]) -> tuple[Tensor, Gradients]:
    """What the released code penalises: Σ ‖A @ B‖₁, an r×r product without the scaling.

    It is no norm of ΔW, exists only where in = out, and is kept because the published weights
    belong to it. Raises NloraError where in ≠ out (grouped-query attention, for example).
    """
    value, grads = factors[0].A.new_zeros(()), []
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


@checked
def overlap_and_grads(
    factors: Sequence[Factors], past: Sequence[Tensor], form: Orthogonality
) -> tuple[Tensor, Gradients]:
    """O-LoRA's overlap with the input spaces of earlier updates, and its gradient.

    `past[j]` is the A of all earlier tasks at matrix j, stacked: (R, in). With G = A_past @ Aᵀ,
    (R, r): Σ|G| ("entrywise", the released code) or ‖G‖²_F ("squared", Eq. 1).
    """
    value, grads = factors[0].A.new_zeros(()), []
    for (A, B, _), A_past in zip(factors, past, strict=True):
        A_past = A_past.to(A.dtype)
        overlap = A_past @ A.T  # (R, in) @ (in, r)
        if form == "entrywise":
            value = value + overlap.abs().sum()
            grad = overlap.sign().T @ A_past  # (r, R) @ (R, in)
        else:
            value = value + overlap.square().sum()
            grad = 2 * overlap.T @ A_past
        grads.append((grad, torch.zeros_like(B)))
    return value, grads


@checked
def entrywise_overlap_and_grads(
    factors: Sequence[Factors], past: Sequence[Factors]
) -> tuple[Tensor, Gradients]:
    """ELLA's Σ ‖ΔW ⊙ W_past‖²_F, scalings included, and its gradient, block by block.

    `past[j]` is what earlier updates add up to at matrix j, of any rank. G = 2·ΔW ⊙ W_past² gives
    ∂/∂B = s·G @ Aᵀ and ∂/∂A = s·Bᵀ @ G; of degree 2 in B, the value is ½⟨B, ∂/∂B⟩.
    """
    value, grads = factors[0].A.new_zeros((), dtype=torch.float64), []
    for (A, B, scaling), whole in zip(factors, past, strict=True):
        A_past, B_past = whole.A.to(A.dtype), whole.B.to(A.dtype)

        def weigh(
            block: Tensor, columns: slice, rows: slice, A: Tensor = A_past, B: Tensor = B_past
        ) -> None:
            block.mul_((A[:, columns].T @ B[rows].T).square_())  # (columns, R) @ (R, rows)

        twice = 2 * (scaling * whole.scaling) ** 2
        dA, dB = (twice * grad for grad in blocked(A, B, weigh))
        value += 0.5 * (B * dB).sum(dtype=torch.float64).to(value.device)
        grads.append((dA, dB))
    return value.to(factors[0].A.dtype), grads


@checked
def factor_norms_and_grads(factors: Sequence[Factors]) -> tuple[Tensor, Gradients]:
    """Σ ‖A‖_F + ‖B‖_F, the second penalty of O-LoRA's released code, and its gradient."""
    value, grads = factors[0].A.new_zeros(()), []
    for A, B, _ in factors:
        norms = A.norm(), B.norm()
        value = value + norms[0] + norms[1]
        tiny = torch.finfo(A.dtype).tiny
        grads.append((A / norms[0].clamp(min=tiny), B / norms[1].clamp(min=tiny)))
    return value, grads


@checked
def factor_l1_and_grads(
    factors: Sequence[Factors], which: Literal["a", "b", "ab"]
) -> tuple[Tensor, Gradients]:
    """Σ ‖A‖₁, Σ ‖B‖₁ or both together, without the scaling: the paper's SA, SB and SAB (Figure 6).

    The paper's A and B are the transposes of these.
    """
    value, grads = factors[0].A.new_zeros(()), []
    for A, B, _ in factors:
        parts = [("a" in which) * A, ("b" in which) * B]
        value = value + parts[0].abs().sum() + parts[1].abs().sum()
        grads.append((parts[0].sign(), parts[1].sign()))
    return value, grads


@checked
def frobenius_and_grads(factors: Sequence[Factors]) -> tuple[Tensor, Gradients]:
    """Σ ‖ΔW‖²_F = Σ s²·tr(BᵀB·AAᵀ), scaling included: shrinks ΔW without making it sparse.

    ∂/∂B = 2s²·B @ (AAᵀ) and ∂/∂A = 2s²·(BᵀB) @ A, through r×r matrices alone.
    """
    value, grads = factors[0].A.new_zeros(()), []
    for A, B, scaling in factors:
        inputs, outputs = A @ A.T, B.T @ B  # (r, r)
        value = value + scaling**2 * (outputs * inputs).sum()
        twice = 2 * scaling**2
        grads.append((twice * (outputs @ A), twice * (B @ inputs)))
    return value, grads


@checked
def column_row_and_grads(factors: Sequence[Factors]) -> tuple[Tensor, Gradients]:
    """Σ |s|·Σ_k ‖b_k‖₁‖a_k‖₁ ≥ Σ ‖ΔW‖₁ with b_k the columns of B and a_k the rows of A.

    Equal to it at rank 1; costs O(r(in + out)). At zero entries the gradient is 0;
    `column_row_shrink` takes the step that a gradient cannot, onto exact zeros.
    """
    value, grads = factors[0].A.new_zeros(()), []
    for A, B, scaling in factors:
        a, b = A.abs().sum(1), B.abs().sum(0)  # (r,)
        value = value + abs(scaling) * (a * b).sum()
        grads.append((abs(scaling) * b[:, None] * A.sign(), abs(scaling) * a * B.sign()))
    return value, grads


@torch.no_grad()
def column_row_shrink(
    factors: Sequence[Factors], weight: float, rates: Sequence[tuple[Rate, Rate]]
) -> None:
    """The proximal step of weight·(the column-row bound), in place: exact zeros in B and A.

    With A held the bound is a weighted ℓ₁ norm of B, whose proximal step is soft-thresholding in
    closed form; then the same for A with the new B. A rate is the size of the step that goes with
    it: entry (i, k) of B moves towards 0 by up to weight·|s|·‖a_k‖₁·rate_B and stops there, entry
    (k, j) of A by weight·|s|·‖b_k‖₁·rate_A. `rates` holds (rate_A, rate_B) per matrix, each one
    number or a tensor of the factor's shape. Raises NloraError for a negative weight.
    """
    check_all(factors)
    check_weight(weight)
    for (A, B, scaling), (rate_a, rate_b) in zip(factors, rates, strict=True):
        size = weight * abs(scaling)
        _soft_threshold(B, size * rate_b * A.abs().sum(1))  # (out, r) by (r,)
        _soft_threshold(A, size * rate_a * B.abs().sum(0)[:, None])  # (r, in) by (r, 1)


def _soft_threshold(entries: Tensor, threshold: Tensor) -> None:
    entries.sub_(entries.clamp(-threshold, threshold))
