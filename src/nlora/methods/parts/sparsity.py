"""The penalty on an update's entries, and its units: an option of every LoRA method.

N-LoRA (Eq. 4): L = L_task + λ‖ΔW‖₁. The setting `penalty` says what stands in that place, summed
over the adapted matrices, with ΔW = s·B·A in PEFT's layout:

    none         nothing (the paper's NS)
    l1           ‖ΔW‖₁ (Eq. 3; N-LoRA)
    l1-a         ‖A‖₁ (SA)
    l1-b         ‖B‖₁ (SB)
    l1-ab        ‖A‖₁ + ‖B‖₁ (SAB)
    released     the entries of the r×r product of A and B, as in the released code; needs in = out
    frobenius    ‖ΔW‖²_F: a control that shrinks without making sparse
    column-row   |s|·Σ_k ‖b_k‖₁‖a_k‖₁ ≥ ‖ΔW‖₁ over the columns of B and rows of A, by proximal steps
                 that leave exact zeros in both

By default the setting `l1` is a ratio ρ of gradient norms (`parts.terms`). So the same ρ pulls
equally hard whichever the penalty, at first: the gradient of an ℓ₁ norm of one factor stays as it
is, that of `l1` and `column-row` grows with the other factor, and that of `frobenius`, which is
quadratic, with ΔW itself. Measured where ΔW is still small, λ is then too strong for `frobenius`
later: to compare it with `l1` choose its weight such that both end at the same ‖ΔW‖_F.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import Field

from nlora.methods.base import Settings, Term, Weight
from nlora.methods.parts.terms import OnFactors

if TYPE_CHECKING:
    from torch import Tensor

    from nlora.lowrank.checks import Gradients
    from nlora.lowrank.factors import Factors
    from nlora.methods.context import Step

SparsityKind = Literal["none", "l1", "l1-a", "l1-b", "l1-ab", "released", "frobenius", "column-row"]
Unit = Literal["relative", "sum", "mean"]


class Norm(NamedTuple):
    """What is penalised."""

    value_and_grads: Callable[[Sequence[Factors]], tuple[Tensor, Gradients]]
    entries: Callable[[Sequence[Factors]], int]
    """The number of terms in its sum, which the unit `mean` divides by."""


def norm(kind: str) -> Norm:
    """The norm of that name (`SparsityKind`)."""
    from nlora.lowrank import penalties as p
    from nlora.lowrank.l1 import entries, l1_norm_and_grads

    factor_l1 = p.factor_l1_and_grads
    norms = {
        "l1": Norm(l1_norm_and_grads, entries),
        "l1-a": Norm(partial(factor_l1, which="a"), lambda fs: sum(f.A.numel() for f in fs)),
        "l1-b": Norm(partial(factor_l1, which="b"), lambda fs: sum(f.B.numel() for f in fs)),
        "l1-ab": Norm(
            partial(factor_l1, which="ab"), lambda fs: sum(f.A.numel() + f.B.numel() for f in fs)
        ),
        "released": Norm(p.released_norm_and_grads, lambda fs: sum(f.A.shape[0] ** 2 for f in fs)),
        "frobenius": Norm(p.frobenius_and_grads, entries),
        "column-row": Norm(p.column_row_and_grads, entries),
    }
    return norms[kind]


class SparseSettings(Settings):
    """The settings of the penalty."""

    penalty: SparsityKind = Field(
        "none",
        description="penalty on the update's entries: l1 is ‖ΔW‖₁ (Eq. 3); l1-a, l1-b and l1-ab "
        "are ‖A‖₁, ‖B‖₁ and both; released is the r×r product of the released code, to which the "
        "published weights belong; frobenius is ‖ΔW‖²_F; column-row is a bound of ‖ΔW‖₁ whose "
        "proximal steps leave exact zeros",
    )
    l1: Weight = Field(
        0.0,
        description="weight of the penalty, one value or one per stage; auto: found while a stage "
        "is trained",
    )
    l1_unit: Unit = Field(
        "relative",
        description="what l1 means: relative to the task's gradient norm, or the factor λ of the "
        "sum or of the mean over entries",
    )


class Sparsity(OnFactors):
    """The penalty of one stage, over all matrices of a LoRA adapter."""

    name = "l1"

    def __init__(
        self, factors: Iterable[Factors], kind: str, weight: float, unit: Unit, steps: int
    ) -> None:
        super().__init__(factors, weight, unit == "relative", steps)
        self.norm = norm(kind)
        self.unit = unit

    def value_and_grads(self) -> tuple[Tensor, Gradients]:
        """The norm, summed over the matrices."""
        return self.norm.value_and_grads(self.factors)

    def given(self) -> float:
        """The weight of the sum, or of the mean over entries."""
        return self.weight / (self.norm.entries(self.factors) if self.unit == "mean" else 1)


class ProximalSparsity(Sparsity):
    """The column-row bound, which acts after the optimiser's step instead of through the gradient.

    The step's size is the optimiser's own, entry by entry (`Step.rates`): with plain gradient
    descent the learning rate, with Adam what Adam would make of the penalty's gradient.
    """

    def __call__(self, step: Step) -> Term | None:
        """λ times the bound, without a gradient; None during the warm-up."""
        term = super().__call__(step)
        return None if term is None else Term(term.value, [])

    def after(self, step: Step) -> None:
        """Shrink B and then A, entries to exact zeros."""
        from nlora.lowrank.penalties import column_row_shrink

        if self.factor is not None and (rates := step.rates) is not None:
            sizes = [(rates(f.A), rates(f.B)) for f in self.factors]  # type: ignore[arg-type]
            column_row_shrink(self.factors, self.factor, sizes)
