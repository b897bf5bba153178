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

A constant λ does not carry over between models, ranks and data, so by default the setting `l1` is a
ratio ρ of gradient norms, over all adapted matrices jointly:

    λ = ρ·‖g‖ / ‖h‖

g is the moving average of the task's gradient before clipping over a warm-up (the first tenth of
the stage's steps, at least 4) in which λ is 0; h is the gradient of the penalty at its end. λ is
measured once per stage and then constant. So the same ρ pulls equally hard whichever the penalty,
at first: the gradient of an ℓ₁ norm of one factor stays as it is, that of `l1` and `column-row`
grows with the other factor, and that of `frobenius`, which is quadratic, with ΔW itself. Measured
where ΔW is still small, λ is then too strong for `frobenius` later: to compare it with `l1` choose
its weight such that both end at the same ‖ΔW‖_F.
"""

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from nlora.carriers.lora import Lora
from nlora.errors import NloraError
from nlora.lowrank.checks import Gradients
from nlora.lowrank.factors import Factors
from nlora.lowrank.l1 import entries, l1_norm_and_grads
from nlora.lowrank.penalties import (
    column_row_and_grads,
    column_row_shrink,
    factor_l1_and_grads,
    frobenius_and_grads,
    released_norm_and_grads,
)
from nlora.methods.base import (
    Learner,
    Method,
    Penalty,
    PerStage,
    Rates,
    Settings,
    Stage,
    Step,
    Term,
    per_stage,
)

SparsityKind = Literal["none", "l1", "l1-a", "l1-b", "l1-ab", "released", "frobenius", "column-row"]
Unit = Literal["relative", "sum", "mean"]


log = logging.getLogger("nlora")


class Norm(NamedTuple):
    """What is penalised."""

    value_and_grads: Callable[[Sequence[Factors]], tuple[Tensor, Gradients]]
    entries: Callable[[Sequence[Factors]], int]
    """The number of terms in its sum, which the unit `mean` divides by."""


NORMS: dict[str, Norm] = {
    "l1": Norm(l1_norm_and_grads, entries),
    "l1-a": Norm(partial(factor_l1_and_grads, which="a"), lambda fs: sum(f.A.numel() for f in fs)),
    "l1-b": Norm(partial(factor_l1_and_grads, which="b"), lambda fs: sum(f.B.numel() for f in fs)),
    "l1-ab": Norm(
        partial(factor_l1_and_grads, which="ab"),
        lambda fs: sum(f.A.numel() + f.B.numel() for f in fs),
    ),
    "released": Norm(released_norm_and_grads, lambda fs: sum(f.A.shape[0] ** 2 for f in fs)),
    "frobenius": Norm(frobenius_and_grads, entries),
    "column-row": Norm(column_row_and_grads, entries),
}

MOMENTUM = 0.9


class SparseSettings(Settings):
    """The settings that every LoRA method has."""

    penalty: SparsityKind = Field(
        "none",
        description="penalty on the update's entries: l1 is ‖ΔW‖₁ (Eq. 3); l1-a, l1-b and l1-ab "
        "are ‖A‖₁, ‖B‖₁ and both; released is the r×r product of the released code, to which the "
        "published weights belong; frobenius is ‖ΔW‖²_F; column-row is a bound of ‖ΔW‖₁ whose "
        "proximal steps leave exact zeros",
    )
    l1: PerStage = Field(0.0, description="weight of the penalty, one value or one per stage")
    l1_unit: Unit = Field(
        "relative",
        description="what l1 means: relative to the task's gradient norm, or the factor λ of the "
        "sum or of the mean over entries",
    )


class Sparsity:
    """The penalty of one stage, over all matrices of a LoRA carrier."""

    name = "l1"

    def __init__(self, carrier: Lora, kind: str, weight: float, unit: Unit, steps: int) -> None:
        self.norm = NORMS[kind]
        self.weight = weight
        self.unit = unit
        self.factors = list(carrier.factors().values())
        self.parameters = [p for f in self.factors for p in (f.A, f.B)]
        self.warm_up = max(4, math.ceil(steps / 10)) if unit == "relative" else 0
        self.factor: float | None = None
        """λ, once it is known."""
        self.average = [torch.zeros_like(p, dtype=torch.float32) for p in self.parameters]
        self.measured: dict[str, float] = {}

    @torch.no_grad()
    def __call__(self, step: Step) -> Term | None:
        """λ times the norm, and its gradient; None during the warm-up."""
        if step.number < self.warm_up:
            for mean, parameter in zip(self.average, self.parameters, strict=True):
                gradient = step.gradients.get(parameter)  # type: ignore[call-overload]
                if gradient is not None:
                    mean.lerp_(gradient.float(), 1 - MOMENTUM)
            return None
        value, pairs = self.norm.value_and_grads(self.factors)
        gradients = [g for pair in pairs for g in pair]
        if self.factor is None:
            self.factor = self._measure(gradients)
        scaled = [(p, self.factor * g) for p, g in zip(self.parameters, gradients, strict=True)]
        return Term(self.factor * float(value), scaled)  # type: ignore[arg-type]

    def _measure(self, gradients: Sequence[Tensor]) -> float:
        if self.unit == "sum":
            return self.weight
        if self.unit == "mean":
            return self.weight / self.norm.entries(self.factors)
        correction = 1 - MOMENTUM**self.warm_up  # the average started at 0
        g = _norm(self.average) / correction
        h = _norm(gradients)
        if h == 0:
            raise NloraError(
                "the penalty's gradient is 0 after the warm-up, so its weight cannot be measured: "
                "the adapter did not move (learning rate 0?)"
            )
        self.average = []
        self.measured = {"task_gradient": g, "penalty_gradient": h}
        return self.weight * g / h

    def notes(self) -> dict[str, Any]:
        """λ as it was used, and the norms it was measured from."""
        return {"lambda": self.factor, "warm_up_steps": self.warm_up, **self.measured}


class ProximalSparsity(Sparsity):
    """The column-row bound, which acts after the optimiser's step instead of through the gradient.

    The step's size is the optimiser's own (`Rates`), entry by entry: with plain gradient descent
    the learning rate, with Adam what Adam would make of the penalty's gradient.
    """

    def __call__(self, step: Step) -> Term | None:
        """λ times the bound, without a gradient; None during the warm-up."""
        term = super().__call__(step)
        return None if term is None else Term(term.value, [])

    def after(self, rates: Rates) -> None:
        """Shrink B and then A, entries to exact zeros."""
        if self.factor is not None:
            sizes = [(rates(f.A), rates(f.B)) for f in self.factors]  # type: ignore[arg-type]
            column_row_shrink(self.factors, self.factor, sizes)


def _norm(tensors: Sequence[Tensor]) -> float:
    return float(torch.stack([t.float().norm() for t in tensors]).norm())


class LoraMethod(Method):
    """A method over LoRA adapters; the penalty on ΔW is an option of each."""

    Settings = SparseSettings
    settings: SparseSettings

    def penalties(self, learner: Learner, stage: Stage) -> list[Penalty]:
        """The penalty that is asked for; with weight 0 there is none."""
        s = self.settings
        weight = per_stage(s.l1, stage.index, "l1")
        if s.penalty == "none" or weight == 0:
            return []
        if self.carrier != "lora":
            raise NloraError(f"penalty '{s.penalty}' needs LoRA adapters; set carrier=lora")
        kind = ProximalSparsity if s.penalty == "column-row" else Sparsity
        term = kind(learner.carrier, s.penalty, weight, s.l1_unit, stage.steps)
        term.norm.value_and_grads(term.factors)  # what it cannot take should not wait for a step
        if stage.steps <= term.warm_up:
            log.warning(
                "stage '%s' has %d steps, and the penalty's weight is measured over the first %d: "
                "it never comes into force",
                stage.name,
                stage.steps,
                term.warm_up,
            )
        return [term]
