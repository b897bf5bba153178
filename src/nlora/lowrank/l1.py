"""‖ΔW‖₁ of all adapters of a model (Eq. 3) and its gradient, without ever storing ΔW.

With P = B @ A and S = sign(P), both (out, in), and the scaling s:

    ∂/∂B = |s|·S @ Aᵀ        ∂/∂A = |s|·Bᵀ @ S        ‖s·P‖₁ = ⟨B, ∂/∂B⟩

The last holds because the norm is homogeneous of degree 1 in B. So value and gradient come from S
alone, which is made and used up block by block. (Done plainly, by product, abs, sum and autograd,
every product stays in memory until the backward pass.) Where ΔW is 0, sign(0) = 0 is a subgradient.
`benchmarks/penalty.py` measures time, memory and the choice of the block.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from nlora.errors import NloraError, unknown
from nlora.lowrank.checks import Gradients, checked
from nlora.lowrank.factors import Factors

Reduction = Literal["sum", "mean"]

BLOCK = {"cpu": 2**18, "cuda": 2**24}
"""Entries of a block: on CPU of each thread's part, which stays in its core's cache; on a GPU so
many that the start of a kernel does not count (reasoned, not measured)."""

COLUMNS = 1024
"""Columns of a block. Sums over longer rows would lose digits."""

TOGETHER = {"cpu": 2**15, "cuda": 2**24}
"""Matrices of one shape are taken together up to so many entries (on CPU: very small ones)."""


@torch.compiler.disable
def l1_norm(factors: Sequence[Factors], reduction: Reduction = "sum") -> Tensor:
    """‖ΔW‖₁ over all matrices, scaling included: a scalar to put into a loss.

    `factors` are (A (r, in), B (out, r), scaling); ranks, shapes and devices may differ. "mean" is
    over the entries of all matrices together. Half-precision factors are computed in fp32.
    `torch.compile` leaves the graph here and goes on behind it. Raises NloraError for factors that
    are no pairs, not floating or not finite, and for a second derivative (`create_graph=True`).

    >>> A, B = torch.ones(1, 3, requires_grad=True), torch.tensor([[1.0], [-2.0]])
    >>> penalty = l1_norm([Factors(A, B, 2.0)])
    >>> penalty.backward()
    >>> penalty.item(), A.grad.tolist()
    (18.0, [[6.0, 6.0, 6.0]])
    """
    if reduction not in ("sum", "mean"):
        raise unknown("reduction", reduction, ("sum", "mean"))
    total = in_loss(l1_norm_and_grads, factors)
    return total / entries(factors) if reduction == "mean" else total


def in_loss(
    value_and_grads: Callable[[Sequence[Factors]], tuple[Tensor, Gradients]],
    factors: Sequence[Factors],
) -> Tensor:
    """A penalty in closed form as a scalar to put into a loss, without a graph of its own."""
    scalings = [f[2] for f in factors]
    parts = *[f[0] for f in factors], *[f[1] for f in factors]
    return _closed(value_and_grads, scalings, *parts)


@checked
def l1_norm_and_grads(factors: Sequence[Factors]) -> tuple[Tensor, Gradients]:
    """Σ ‖ΔW‖₁ over the matrices, scaling included, and [(∂/∂A, ∂/∂B), …] in their order.

    No autograd graph is made. Memory: one block, and the gradients. Of half-precision factors value
    and gradients are fp32. Raises NloraError as `l1_norm` does.
    """
    value = torch.zeros((), dtype=torch.float64, device=factors[0].A.device)
    grads: Gradients = [(f.A, f.B) for f in factors]
    for indices in _together(factors):
        A = _stack([factors[j].A for j in indices])
        B = _stack([factors[j].B for j in indices])
        dA, dB = blocked(A, B, lambda block, columns, rows: block.sign_())
        pairs = [(dA, dB)] if len(indices) == 1 else zip(dA, dB, strict=True)
        for j, (a, b) in zip(indices, pairs, strict=True):
            size = abs(factors[j].scaling)
            grads[j] = a.mul_(size), b.mul_(size)
            value += (factors[j].B * b).sum(dtype=torch.float64).to(value.device)
    return value.to(factors[0].A.dtype), grads


def entries(factors: Sequence[Factors]) -> int:
    """How many entries the updates of all matrices have together."""
    return sum(A.shape[1] * B.shape[0] for A, B, _ in factors)


def blocked(
    A: Tensor, B: Tensor, change: Callable[[Tensor, slice, slice], object]
) -> tuple[Tensor, Tensor]:
    """Bᵀ @ G and G @ Aᵀ for A (…, r, in), B (…, out, r), where G is made of P = B @ A by blocks.

    `change(block, columns, rows)` gets Pᵀ[…, columns, rows] and leaves Gᵀ there. The transpose,
    since that way no product has the rank as its contiguous dimension, which is about twice as fast
    on CPU. For G = sign(P) that is the gradient of ‖P‖₁.
    """
    *many, _, width = A.shape
    across = min(width, COLUMNS)
    down = max(1, min(B.shape[-2], _block(A.device) // (math.prod(many) * across)))
    buffer = A.new_empty(*many, across, down)
    dA, dB = torch.zeros_like(A), torch.zeros_like(B)
    for i in range(0, B.shape[-2], down):
        rows = slice(i, min(i + down, B.shape[-2]))
        Bt, dBt = B[..., rows, :].mT, dB[..., rows, :].mT
        for j in range(0, width, across):
            columns = slice(j, min(j + across, width))
            Aj = A[..., columns]
            Gt = buffer[..., : Aj.shape[-1], : Bt.shape[-1]]
            change(torch.matmul(Aj.mT, Bt, out=Gt), columns, rows)  # (columns, r) @ (r, rows)
            dA[..., columns] += Bt @ Gt.mT  # (r, rows) @ (rows, columns)
            dBt += Aj @ Gt  # (r, columns) @ (columns, rows)
    return dA, dB


def _block(device: torch.device) -> int:
    if device.type == "cpu":
        return BLOCK["cpu"] * torch.get_num_threads()
    return BLOCK["cuda"]


def _together(factors: Sequence[Factors]) -> Iterator[list[int]]:
    """The matrices that are computed at once: of one kind, as many as `TOGETHER` allows."""
    kinds: dict[Any, list[int]] = {}
    for j, (A, B, _) in enumerate(factors):
        kinds.setdefault((A.shape, B.shape, A.dtype, A.device), []).append(j)
    for (_, _, _, device), members in kinds.items():
        most = TOGETHER["cpu" if device.type == "cpu" else "cuda"]
        count = max(1, most // entries([factors[members[0]]]))
        for start in range(0, len(members), count):
            yield members[start : start + count]


def _stack(factors: list[Tensor]) -> Tensor:
    return factors[0] if len(factors) == 1 else torch.stack(factors)


class _Closed(torch.autograd.Function):
    """The forward pass computes the gradient too; the backward pass only scales it."""

    @staticmethod
    def forward(ctx: Any, value_and_grads: Any, scalings: list[float], *tensors: Tensor) -> Tensor:
        """The value of factors given as all A, then all B."""
        As, Bs = tensors[: len(scalings)], tensors[len(scalings) :]
        factors = [Factors(*parts) for parts in zip(As, Bs, scalings, strict=True)]
        value, grads = value_and_grads(factors)
        ctx.save_for_backward(*[g for g, _ in grads], *[g for _, g in grads])
        return value

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        """The gradient of each factor; autograd gives it the factor's dtype."""
        if torch.is_grad_enabled():
            raise NloraError("a penalty can be differentiated once only (create_graph=True)")
        return None, None, *(g * upstream[0].to(g.device) for g in ctx.saved_tensors)


_closed: Any = torch.compiler.disable(_Closed.apply)
