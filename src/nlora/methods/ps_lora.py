"""PS-LoRA: an update does not turn back what earlier ones did, and the largest entries are kept.

"Resolving Conflicts in Lifelong Learning via Aligning Updates in Subspaces" (arXiv:2512.08960). A
new LoRA adapter per task; from the second task on its entries are held from opposing what is there,
and its size is held too:

    L = L_task + λ Σ_matrices Σ max(0, −ΔW ⊙ sign(W_past)) + μ Σ_matrices ‖ΔW‖²_F,
    W_past = Σ_{i<t} ΔW_i

and after training the updates are merged by magnitude: per entry the largest (`consolidation`). The
second term is the setting `penalty` with `l1` for μ. Both weights are ratios of gradient norms
(`parts.terms`). The exact terms are our reading: see docs/differences.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from nlora.methods.base import Penalty, PerStage, Weight, per_stage
from nlora.methods.parts.lora import ConsolidationName, LoraMethod, LoraSettings
from nlora.methods.parts.sparsity import SparsityKind
from nlora.methods.parts.terms import OnFactors, ready

if TYPE_CHECKING:
    from torch import Tensor

    from nlora.adapters.lora import Lora
    from nlora.lowrank.checks import Gradients
    from nlora.methods.context import Context


class PsLoraSettings(LoraSettings):
    """Both terms, and the merge."""

    opposition_weight: PerStage = Field(
        0.05,
        description="weight of entries that oppose earlier updates, relative to the task's "
        "gradient norm, one value or one per stage",
    )
    penalty: SparsityKind = Field(
        "frobenius", description=LoraSettings.model_fields["penalty"].description
    )
    l1: Weight = Field(0.01, description=LoraSettings.model_fields["l1"].description)
    consolidation: ConsolidationName = Field(
        "largest", description=LoraSettings.model_fields["consolidation"].description
    )


class Opposition(OnFactors):
    """λ Σ max(0, −ΔW ⊙ sign(W_past)), a matrix at a time."""

    name = "opposition"

    def __init__(self, adapter: Lora, weight: float, steps: int) -> None:
        import torch

        named = adapter.whole()
        super().__init__(named.values(), weight, relative=True, steps=steps)
        self.signs: list[Tensor] = []
        for name in named:
            past = sum(update[name].delta() for update in adapter.past)
            self.signs.append(torch.sign(past).to(torch.int8))  # type: ignore[arg-type]

    def value_and_grads(self) -> tuple[Tensor, Gradients]:
        """What opposes, and its gradient: where it does, that of −ΔW ⊙ sign."""
        value = self.factors[0].A.new_zeros(())
        grads = []
        for (A, B, scaling), sign in zip(self.factors, self.signs, strict=True):
            delta = scaling * (B @ A)
            opposing = delta * sign < 0
            value = value + delta.abs()[opposing].sum()
            slope = -scaling * sign * opposing  # ∂/∂(B·A), (out, in)
            grads.append((B.T @ slope.to(B), slope.to(A) @ A.T))
        return value, grads


class PsLora(LoraMethod):
    """A fresh adapter per task that goes the earlier ones' way, merged by magnitude."""

    name = "ps-lora"
    summary = "a new LoRA adapter per task, held from opposing earlier ones, merged by magnitude"
    paper = "arXiv:2512.08960"
    Settings = PsLoraSettings
    settings: PsLoraSettings

    def own_weight(self) -> str:
        """Opposition's."""
        return "opposition_weight"

    def penalties(self, ctx: Context) -> list[Penalty]:
        """Opposition from the second task on, beside the penalty of every LoRA method."""
        from nlora.adapters.lora import Lora

        terms = super().penalties(ctx)
        weight = per_stage(self.settings.opposition_weight, ctx.stage.index, "opposition_weight")
        lora = ctx.adapter_as(Lora)
        if weight and lora.past:
            terms.append(ready(Opposition(lora, weight, ctx.stage.steps)))
        return terms

    def measured(self, stage: int) -> list[str]:
        """Opposition too, from the second task on."""
        weight = per_stage(self.settings.opposition_weight, stage, "opposition_weight")
        return [*super().measured(stage), *(["opposition"] if weight and stage > 1 else [])]
