"""O-LoRA: each new adapter reads other directions of the input than the earlier ones.

"Orthogonal Subspace Learning for Language Model Continual Learning" (arXiv:2310.14152). A new LoRA
adapter per task with a penalty on the overlap of its A with every earlier one; in PEFT's layout,
A (r, in), summed over matrices and earlier tasks i:

    entrywise   λ₁ Σ_i Σ |A_i Aᵀ|     the released code, to which the published λ₁ = 0.5 belongs
    squared     λ₁ Σ_i ‖A_i Aᵀ‖²_F    as printed (Eq. 1 of arXiv:2410.10179)

The released code adds λ₂ (Σ ‖A‖_F + ‖B‖_F) over the new factors, with λ₂ = 0 on orders 1 to 3.
"""

from typing import Any

import torch
from pydantic import Field

from nlora.lowrank.factors import concatenate
from nlora.lowrank.penalties import Orthogonality, factor_norms_and_grads, overlap_and_grads
from nlora.methods.base import Learner, Penalty, PerStage, Stage, Step, Term, per_stage
from nlora.methods.lora import LoraMethod, LoraSettings


class OLoraSettings(LoraSettings):
    """O-LoRA's published defaults."""

    orthogonality: Orthogonality = Field(
        "entrywise", description="entrywise as in the released code, or squared as in Eq. 1"
    )
    orthogonality_weight: PerStage = Field(
        0.5, description="λ₁, the weight of the overlap, one value or one per stage"
    )
    norm_weight: PerStage = Field(
        0.0, description="λ₂, the weight of the new factors' norms, one value or one per stage"
    )


class Overlap:
    """λ₁ times the overlap of the new adapter's input spaces with all earlier ones."""

    name = "orthogonality"

    def __init__(self, learner: Learner, form: Orthogonality, weight: float) -> None:
        carrier = learner.carrier
        self.form: Orthogonality = form
        self.weight = weight
        self.factors = list(carrier.factors().values())
        self.past = [
            concatenate([update[name] for update in carrier.past]).A for name in carrier.factors()
        ]

    @torch.no_grad()
    def __call__(self, step: Step) -> Term:
        """The weighted overlap and its gradient, which is that of A alone."""
        value, grads = overlap_and_grads(self.factors, self.past, self.form)
        added = [(f.A, self.weight * g) for f, (g, _) in zip(self.factors, grads, strict=True)]
        return Term(self.weight * float(value), added)  # type: ignore[arg-type]

    def notes(self) -> dict[str, Any]:
        """Nothing is measured."""
        return {}


class FactorNorms:
    """λ₂ times the norms of the new factors."""

    name = "norms"

    def __init__(self, learner: Learner, weight: float) -> None:
        self.weight = weight
        self.factors = list(learner.carrier.factors().values())

    @torch.no_grad()
    def __call__(self, step: Step) -> Term:
        """The weighted norms and their gradient."""
        value, grads = factor_norms_and_grads(self.factors)
        added = [
            (p, self.weight * g)
            for f, pair in zip(self.factors, grads, strict=True)
            for p, g in zip((f.A, f.B), pair, strict=True)
        ]
        return Term(self.weight * float(value), added)  # type: ignore[arg-type]

    def notes(self) -> dict[str, Any]:
        """Nothing is measured."""
        return {}


class OLora(LoraMethod):
    """A fresh adapter per task, kept orthogonal to the earlier ones."""

    name = "o-lora"
    summary = "a new LoRA adapter per task, its input space kept orthogonal to the earlier ones"
    paper = "arXiv:2310.14152"
    Settings = OLoraSettings
    settings: OLoraSettings

    def own_weight(self) -> str:
        """The penalty's weight where there is one, else the overlap's."""
        return super().own_weight() or "orthogonality_weight"

    def first_stage(self) -> dict[str, Any]:
        """There is nothing to overlap with yet; the norms count where they are asked for."""
        norms = per_stage(self.settings.norm_weight, 1, "norm_weight")
        return {**self.lora_first_stage(), **({"norm_weight": norms} if norms else {})}

    def penalties(self, learner: Learner, stage: Stage) -> list[Penalty]:
        """The overlap from the second task on, the norms where asked for, and ‖ΔW‖₁ likewise."""
        terms = super().penalties(learner, stage)
        s = self.settings
        overlap = per_stage(s.orthogonality_weight, stage.index, "orthogonality_weight")
        norms = per_stage(s.norm_weight, stage.index, "norm_weight")
        if overlap and learner.carrier.past:
            terms.append(Overlap(learner, s.orthogonality, overlap))
        if norms:
            terms.append(FactorNorms(learner, norms))
        return terms
