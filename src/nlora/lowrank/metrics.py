"""The paper's measures of low-rank updates, and what has to stand beside them.

Layout: ΔW = s·B·A is (out, in), the transpose of the paper's. So the paper's ΔW₁ᵀΔW₂ is
ΔW₁ @ ΔW₂ᵀ here, (out, out): it compares input spaces. Scaling is included everywhere but in
`oo`, which is of A alone. Everything is computed in float64.

What is a function of the factors never forms ΔW (`geometry`): it is read from r×r products. What
needs single entries goes tile by tile (`entry_norm`).

Of these numbers `oo`, `awom_*`, `inner_product`, `entry_overlap` and all norms fall when an update
merely shrinks. `cosine`, `input_overlap`, `output_overlap`, `gsr` and `effective_rank` do not.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nlora.errors import NloraError
from nlora.lowrank.entries import tiles
from nlora.lowrank.factors import Factors, check, check_same_matrix, svd


@dataclass(frozen=True)
class Geometry:
    """What the factors alone say of T updates of one matrix. Pairs are (T, T), symmetric."""

    spectra: list[Tensor]
    """The singular values of each ΔW, (min(r, out, in),), descending."""

    frobenius: Tensor
    """‖ΔW‖_F = √Σσ², (T,)."""

    nuclear_norm: Tensor
    """‖ΔW‖_* = Σσ (Figure 3), (T,). No bound on the rank: it falls as an update shrinks."""

    effective_rank: Tensor
    """exp(−Σ p log p) with p = σ/Σσ, (T,): how many directions an update uses; 0 for ΔW = 0."""

    oo: Tensor
    """Orthogonal overlap ‖A_i A_jᵀ‖²_F: the term of Eqs. 1 and 7, of A alone."""

    awom_input_fro: Tensor
    """‖ΔW_i ΔW_jᵀ‖_F (Eq. 8, the paper's): input spaces. 0 where OO is 0."""

    awom_input_spectral: Tensor
    """‖ΔW_i ΔW_jᵀ‖₂, the largest singular value (Eq. 8 read as the spectral norm)."""

    awom_output_fro: Tensor
    """‖ΔW_iᵀ ΔW_j‖_F: output spaces. Not implied by OO = 0."""

    awom_output_spectral: Tensor
    """‖ΔW_iᵀ ΔW_j‖₂."""

    inner_product: Tensor
    """⟨ΔW_i, ΔW_j⟩ = tr(ΔW_iᵀ ΔW_j): 0 where the supports are disjoint (Theorem 1, mended)."""

    cosine: Tensor
    """⟨ΔW_i, ΔW_j⟩ / (‖ΔW_i‖_F ‖ΔW_j‖_F), in [−1, 1]; 0 where one of them is 0."""

    input_overlap: Tensor
    """‖ΔW_i ΔW_jᵀ‖_F / (‖ΔW_i‖_F ‖ΔW_j‖_F), in [0, 1]: AWOM without the updates' sizes."""

    output_overlap: Tensor
    """‖ΔW_iᵀ ΔW_j‖_F / (‖ΔW_i‖_F ‖ΔW_j‖_F), in [0, 1]."""


@torch.no_grad()
def geometry(updates: Sequence[Factors]) -> Geometry:
    """All measures of the updates of one matrix that are functions of the factors.

    With ΔW_i = U_i S_i V_iᵀ, ΔW_i ΔW_jᵀ has the norms of S_i (V_iᵀ V_j) S_j, r×r, and
    ΔW_iᵀ ΔW_j those of S_i (U_iᵀ U_j) S_j. Memory: O(T·r·(out + in)) and T². Raises NloraError for
    bad factors, and for updates that are not of one matrix.
    """
    check_same_matrix(updates)
    parts = [svd(u) for u in updates]
    spectra = [p.S for p in parts]
    ranks = torch.tensor([len(S) for S in spectra])
    starts = (ranks.cumsum(0) - ranks).tolist()
    owner = torch.repeat_interleave(torch.arange(len(updates)), ranks)  # (K,), K = Σ ranks
    U = torch.cat([p.U for p in parts], dim=1)  # (out, K)
    V = torch.cat([p.V for p in parts], dim=1)  # (in, K)
    S = torch.cat(spectra)  # (K,)
    A = torch.cat([u.A.double() for u in updates])  # (ΣR, in)
    A_owner = torch.repeat_interleave(
        torch.arange(len(updates)), torch.tensor([u.A.shape[0] for u in updates])
    )

    names = ("oo", "input", "input_spectral", "output", "output_spectral", "inner")
    pairs = {name: S.new_zeros(len(updates), len(updates)) for name in names}
    for i, update in enumerate(updates):
        here, rest = slice(starts[i], starts[i] + int(ranks[i])), slice(starts[i], None)
        weights = S[here, None] * S[rest]  # (k_i, K_rest): only pairs with j ≥ i
        inputs = weights * (V[:, here].T @ V[:, rest])
        cosines = U[:, here].T @ U[:, rest]
        outputs = weights * cosines
        pairs["oo"][i] = _per_update((update.A.double() @ A.T).square(), A_owner, len(updates))
        pairs["input"][i] = _per_update(inputs.square(), owner[rest], len(updates)).sqrt()
        pairs["output"][i] = _per_update(outputs.square(), owner[rest], len(updates)).sqrt()
        pairs["inner"][i] = _per_update(inputs * cosines, owner[rest], len(updates))
        pairs["input_spectral"][i, i:] = _spectral(inputs, ranks[i:])
        pairs["output_spectral"][i, i:] = _spectral(outputs, ranks[i:])
    pairs = {name: x.triu() + x.triu(1).T for name, x in pairs.items()}

    frobenius = torch.stack([S.norm() for S in spectra])
    scale = frobenius[:, None] * frobenius
    scale = torch.where(scale > 0, scale, torch.inf)
    return Geometry(
        spectra=spectra,
        frobenius=frobenius,
        nuclear_norm=torch.stack([S.sum() for S in spectra]),
        effective_rank=torch.stack([_effective_rank(S) for S in spectra]),
        oo=pairs["oo"],
        awom_input_fro=pairs["input"],
        awom_input_spectral=pairs["input_spectral"],
        awom_output_fro=pairs["output"],
        awom_output_spectral=pairs["output_spectral"],
        inner_product=pairs["inner"],
        cosine=pairs["inner"] / scale,
        input_overlap=pairs["input"] / scale,
        output_overlap=pairs["output"] / scale,
    )


@torch.no_grad()
def entry_norm(update: Factors, p: float = 1.0) -> float:
    """ℓ_p(ΔW) = (Σ|ΔW[a, b]|^p)^(1/p) over the entries, p > 0; ‖ΔW‖₁ for p = 1.

    Memory is O(r·(out + in)) beside one tile. Raises NloraError for bad factors or p ≤ 0.
    """
    check(update)
    if not p > 0:
        raise NloraError(f"an entrywise norm needs p > 0, not {p}")
    if p == 2:
        return float(svd(update).S.norm())
    if p == 1:
        return sum(float(tile.values.abs_().sum()) for tile in tiles([update]))
    # Relative to the root mean square, so that no power over- or underflows.
    unit = entry_norm(update, 2) / math.sqrt(update.B.shape[0] * update.A.shape[1])
    if unit == 0:
        return 0.0
    total = sum(float((tile.values.abs_() / unit).pow_(p).sum()) for tile in tiles([update]))
    return unit * total ** (1 / p)


@torch.no_grad()
def entry_overlap(updates: Sequence[Factors]) -> Tensor:
    """ELLA's overlap ‖ΔW_i ⊙ ΔW_j‖²_F of every two updates of one matrix, (T, T), float64.

    Large where both are large at the same positions. Memory as `entry_norm`. Raises NloraError for
    bad factors, and for updates that are not of one matrix.
    """
    check_same_matrix(updates)
    total = torch.zeros(len(updates), len(updates), dtype=torch.float64)
    for tile in tiles(updates):
        squares = tile.values.square_().reshape(len(updates), -1)  # (T, n)
        total += (squares @ squares.T).cpu()
    return total


def gsr(update: Factors, q: float = 1.0, p: float = 2.0) -> float:
    """Generalised sparsity rate (Eq. 9): (mn)^(1/p − 1/q)·ℓ_q(ΔW)/ℓ_p(ΔW), p > q > 0.

    A density: 1 where all |entries| are equal, (mn)^(1/p − 1/q) for a single non-zero one, and 0 by
    definition for ΔW = 0. Raises NloraError for bad factors, and unless p > q > 0.
    """
    size = update.B.shape[0] * update.A.shape[1]
    return gsr_of_norms(entry_norm(update, q), entry_norm(update, p), size, q, p)


def gsr_of_norms(l_q: float, l_p: float, size: int, q: float = 1.0, p: float = 2.0) -> float:
    """Eq. 9 of a matrix of `size` entries whose ℓ_q and ℓ_p norms are known."""
    if not p > q > 0:
        raise NloraError(f"GSR needs p > q > 0, not p = {p} and q = {q}")
    return size ** (1 / p - 1 / q) * l_q / l_p if l_p > 0 else 0.0


def _effective_rank(spectrum: Tensor) -> Tensor:
    total = spectrum.sum()
    if total == 0:
        return total
    return torch.special.entr(spectrum / total).sum().exp()


def _per_update(block: Tensor, owner: Tensor, count: int) -> Tensor:
    """Sums over the columns of each update: (k, K) → (count,)."""
    return block.new_zeros(count).index_add(0, owner.to(block.device), block.sum(dim=0))


def _spectral(block: Tensor, ranks: Tensor) -> Tensor:
    """Spectral norms of the blocks of (k, Σ ranks), one per update; equal ranks together."""
    norms = block.new_empty(len(ranks))
    parts = block.split(ranks.tolist(), dim=1)
    for rank in ranks.unique():
        members = (ranks == rank).nonzero().flatten().tolist()
        stack = torch.stack([parts[j] for j in members])  # (n, k, rank)
        norms[members] = torch.linalg.matrix_norm(stack, ord=2)
    return norms
