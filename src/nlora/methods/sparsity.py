"""The penalty on the size of ΔW's entries, and its units: an option of every LoRA method.

N-LoRA (Eq. 4): L = L_task + λ‖ΔW‖₁. A constant λ does not carry over between models, ranks and
data, so by default the setting `l1` is a ratio ρ of gradient norms, over all adapted matrices
jointly:

    λ = ρ·‖g‖ / ‖h‖

g is the moving average of the task's gradient before clipping over a warm-up (the first tenth of
the stage's steps, at least 4) in which λ is 0; h is the gradient of Σ‖ΔW‖₁ at its end. λ is
measured once per stage and then constant.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from nlora.carriers.lora import Lora
from nlora.errors import NloraError
from nlora.lowrank.penalties import l1_norm_and_grads, released_norm_and_grads
from nlora.methods.base import (
    Learner,
    Method,
    Penalty,
    PerStage,
    Settings,
    Stage,
    Step,
    Term,
    per_stage,
)

SparsityKind = Literal["none", "l1", "released"]
Unit = Literal["relative", "sum", "mean"]

NORMS = {"l1": l1_norm_and_grads, "released": released_norm_and_grads}

MOMENTUM = 0.9


class SparseSettings(Settings):
    """The settings that every LoRA method has."""

    penalty: SparsityKind = Field(
        "none",
        description="penalty on the update's entries: l1 is ‖ΔW‖₁ (Eq. 3); released is the r×r "
        "product of the released code, to which the published weights belong",
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
        """λ‖ΔW‖₁ and its gradient; None during the warm-up."""
        if step.number < self.warm_up:
            for mean, parameter in zip(self.average, self.parameters, strict=True):
                gradient = step.gradients.get(parameter)  # type: ignore[call-overload]
                if gradient is not None:
                    mean.lerp_(gradient.float(), 1 - MOMENTUM)
            return None
        value, pairs = self.norm(self.factors)
        gradients = [g for pair in pairs for g in pair]
        if self.factor is None:
            self.factor = self._measure(gradients)
        scaled = [(p, self.factor * g) for p, g in zip(self.parameters, gradients, strict=True)]
        return Term(self.factor * float(value), scaled)  # type: ignore[arg-type]

    def _measure(self, gradients: Sequence[Tensor]) -> float:
        if self.unit == "sum":
            return self.weight
        if self.unit == "mean":
            return self.weight / sum(f.A.shape[1] * f.B.shape[0] for f in self.factors)
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


def _norm(tensors: Sequence[Tensor]) -> float:
    return float(torch.stack([t.float().norm() for t in tensors]).norm())


class LoraMethod(Method):
    """A method over LoRA adapters; the penalty on ΔW is an option of each."""

    Settings = SparseSettings
    settings: SparseSettings

    def penalties(self, learner: Learner, stage: Stage) -> list[Penalty]:
        """The penalty on ΔW where one is asked for; with weight 0 there is none."""
        s = self.settings
        weight = per_stage(s.l1, stage.index, "l1")
        if s.penalty == "none" or weight == 0:
            return []
        if self.carrier != "lora":
            raise NloraError(f"penalty '{s.penalty}' needs LoRA adapters; set carrier=lora")
        return [Sparsity(learner.carrier, s.penalty, weight, s.l1_unit, stage.steps)]
