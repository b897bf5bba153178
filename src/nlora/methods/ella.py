"""ELLA: an update keeps small where the earlier ones are large.

ELLA (EACL 2026). A new LoRA adapter per task; from the second task on

    L = L_task + λ Σ_matrices ‖ΔW_t ⊙ W_past‖²_F,    W_past = Σ_{i<t} ΔW_i

entry by entry, with the earlier updates frozen and active. N-LoRA keeps every update sparse, so
that they hardly meet; this keeps the new one from what is there, and lets it grow elsewhere.

λ in public scripts runs from 3e4 to 5e7 by order, for products B·A without the scaling s = α/r;
`ella_unit: sum` takes such a number (on the updates themselves it is λ/s⁴). By default the
weight is a ratio ρ of gradient norms (`parts.terms`). The penalty is quadratic, so its gradient
grows with ΔW_t, which is small when it is measured; hence

    c = mean_{i<t} ‖ΔW_i‖_F / ‖ΔW_t‖_F

over all matrices jointly, and ρ is the ratio once the new update is as large as an earlier one.

W_past is the sum whatever the consolidation; with `none` it holds an adapter off from updates that
it never meets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from nlora.methods.base import Penalty, Weight, per_stage
from nlora.methods.parts.auto import AUTO
from nlora.methods.parts.lora import LoraMethod, LoraSettings
from nlora.methods.parts.terms import OnFactors, ready

if TYPE_CHECKING:
    from torch import Tensor

    from nlora.adapters.lora import Lora
    from nlora.lowrank.checks import Gradients
    from nlora.lowrank.factors import Factors
    from nlora.methods.context import Context


class EllaSettings(LoraSettings):
    """The overlap's weight. The paper's depend on the order; the default here is a first value."""

    ella_weight: Weight = Field(
        0.2,
        description="weight of the overlap with earlier updates, one value, one per stage, or auto",
    )
    ella_unit: Literal["relative", "sum"] = Field(
        "relative",
        description="what ella_weight means: relative to the task's gradient norm once the update "
        "is as large as earlier ones, or the λ of public scripts, of a sum over B·A without α/r",
    )


class PastOverlap(OnFactors):
    """λ Σ ‖ΔW ⊙ W_past‖²_F over the matrices of a LoRA adapter."""

    name = "ella"

    def __init__(self, adapter: Lora, weight: float, relative: bool, steps: int) -> None:
        named = adapter.whole()
        super().__init__(named.values(), weight, relative, steps)
        self.past = [_sum([update[name] for update in adapter.past]) for name in named]
        sizes = [_size(list(update.values())) for update in adapter.past]
        self.size = sum(sizes) / len(sizes)
        """mean_{i<t} ‖ΔW_i‖_F"""

    def value_and_grads(self) -> tuple[Tensor, Gradients]:
        """The overlap, summed over the matrices."""
        from nlora.lowrank.penalties import entrywise_overlap_and_grads

        return entrywise_overlap_and_grads(self.factors, self.past)

    def given(self) -> float:
        """λ/s⁴: both sides of the published overlap are without the scaling."""
        return self.weight / self.factors[0].scaling ** 4

    def growth(self) -> float:
        """How many times larger an earlier update is."""
        return self.size / _size(self.factors)


def _size(factors: list[Factors]) -> float:
    """‖ΔW‖_F over all matrices."""
    from nlora.lowrank.penalties import frobenius_and_grads

    return float(frobenius_and_grads(factors)[0].double().sqrt())


def _sum(updates: list[Factors]) -> Factors:
    """Their sum, exactly, of a rank that does not grow beyond that of the matrix."""
    import torch

    from nlora.lowrank.factors import concatenate, recompress

    with torch.no_grad():
        whole = concatenate(updates)
        return recompress(whole, min(whole.B.shape[0], whole.A.shape[1]))[0]


class Ella(LoraMethod):
    """A fresh adapter per task that is kept from where the earlier ones are."""

    name = "ella"
    summary = "a new LoRA adapter per task, kept small where the earlier ones are large"
    paper = "ELLA (EACL 2026)"
    Settings = EllaSettings
    settings: EllaSettings

    def own_weight(self) -> str:
        """The penalty's weight where there is one, else the overlap's."""
        return super().own_weight() or "ella_weight"

    def first_stage(self) -> dict[str, Any]:
        """There is nothing to overlap with yet."""
        return self.lora_first_stage()

    def penalties(self, ctx: Context) -> list[Penalty]:
        """The overlap from the second task on, beside the penalty of every LoRA method."""
        from nlora.adapters.lora import Lora

        terms = super().penalties(ctx)
        s = self.settings
        weight = per_stage(s.ella_weight, ctx.stage.index, "ella_weight")
        lora = ctx.adapter_as(Lora)
        if weight and lora.past:
            relative = s.ella_unit == "relative" and s.ella_weight != AUTO
            overlap = PastOverlap(lora, weight, relative, ctx.stage.steps)
            terms.append(self.weighed(ready(overlap), s.ella_weight, ctx))
        return terms

    def measured(self, stage: int) -> list[str]:
        """The overlap too, from the second task on, where its weight is a ratio."""
        s = self.settings
        relative = s.ella_unit == "relative" and s.ella_weight != AUTO
        weighed = relative and per_stage(s.ella_weight, stage, "ella_weight")
        return [*super().measured(stage), *(["ella"] if weighed and stage > 1 else [])]
