"""O-LoRA: each new adapter reads other directions of the input than the earlier ones.

"Orthogonal Subspace Learning for Language Model Continual Learning" (arXiv:2310.14152). A new LoRA
adapter per task with a penalty on the overlap of its A with every earlier one; in PEFT's layout,
A (r, in), summed over matrices and earlier tasks i:

    entrywise   λ₁ Σ_i Σ |A_i Aᵀ|     the released code, to which the published λ₁ = 0.5 belongs
    squared     λ₁ Σ_i ‖A_i Aᵀ‖²_F    as printed (Eq. 1 of arXiv:2410.10179)

The released code adds λ₂ (Σ ‖A‖_F + ‖B‖_F) over the new factors, with λ₂ = 0 on orders 1 to 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from nlora.methods.base import Penalty, PerStage, Weight, per_stage
from nlora.methods.parts.lora import LoraMethod, LoraSettings
from nlora.methods.parts.terms import Weighted, flat

if TYPE_CHECKING:
    from torch import Tensor

    from nlora.adapters.lora import Lora
    from nlora.lowrank.penalties import Orthogonality
    from nlora.methods.context import Context
    from nlora.methods.parts.terms import Pairs


class OLoraSettings(LoraSettings):
    """O-LoRA's published defaults."""

    orthogonality: Literal["entrywise", "squared"] = Field(
        "entrywise", description="entrywise as in the released code, or squared as in Eq. 1"
    )
    orthogonality_weight: Weight = Field(
        0.5, description="λ₁, the weight of the overlap, one value, one per stage, or auto"
    )
    norm_weight: PerStage = Field(
        0.0, description="λ₂, the weight of the new factors' norms, one value or one per stage"
    )


class Overlap(Weighted):
    """λ₁ times the overlap of the new adapter's input spaces with all earlier ones."""

    name = "orthogonality"

    def __init__(self, adapter: Lora, form: Orthogonality, weight: float) -> None:
        from nlora.lowrank.factors import concatenate

        super().__init__(weight)
        self.form: Orthogonality = form
        named = adapter.factors()
        self.factors = list(named.values())
        self.past = [concatenate([update[name] for update in adapter.past]).A for name in named]

    def value_and_pairs(self) -> tuple[Tensor, Pairs]:
        """The overlap, and its gradient, which is that of A alone."""
        from nlora.lowrank.penalties import overlap_and_grads

        value, grads = overlap_and_grads(self.factors, self.past, self.form)
        return value, [(f.A, g) for f, (g, _) in zip(self.factors, grads, strict=True)]  # type: ignore[misc]


class FactorNorms(Weighted):
    """λ₂ times the norms of the new factors."""

    name = "norms"

    def __init__(self, adapter: Lora, weight: float) -> None:
        super().__init__(weight)
        self.factors = list(adapter.factors().values())

    def value_and_pairs(self) -> tuple[Tensor, Pairs]:
        """The norms and their gradient."""
        from nlora.lowrank.penalties import factor_norms_and_grads

        value, grads = factor_norms_and_grads(self.factors)
        parameters = [p for f in self.factors for p in (f.A, f.B)]
        return value, list(zip(parameters, flat(grads), strict=True))  # type: ignore[arg-type]


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

    def penalties(self, ctx: Context) -> list[Penalty]:
        """The overlap from the second task on, the norms where asked for, and ‖ΔW‖₁ likewise."""
        from nlora.adapters.lora import Lora

        terms = super().penalties(ctx)
        s = self.settings
        overlap = per_stage(s.orthogonality_weight, ctx.stage.index, "orthogonality_weight")
        norms = per_stage(s.norm_weight, ctx.stage.index, "norm_weight")
        lora = ctx.adapter_as(Lora)
        if overlap and lora.past:
            term = Overlap(lora, s.orthogonality, overlap)
            terms.append(self.weighed(term, s.orthogonality_weight, ctx))
        if norms:
            terms.append(FactorNorms(lora, norms))
        return terms
