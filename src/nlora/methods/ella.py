"""ELLA: an update keeps small where the earlier ones are large.

ELLA (EACL 2026). A new LoRA adapter per task; from the second task on

    L = L_task + λ Σ_matrices ‖ΔW_t ⊙ W_past‖²_F,    W_past = Σ_{i<t} ΔW_i

entry by entry, with the earlier updates frozen and in force. N-LoRA keeps every update sparse, so
that they hardly meet; this keeps the new one from what is there, and lets it grow elsewhere.

λ in public scripts runs from 3e4 to 5e7 by order, for products B·A without the scaling s = α/r;
`ella_unit: sum` takes such a number (on the updates themselves it is λ/s⁴). By default the
weight is a ratio ρ of gradient norms (`methods.weight`). The penalty is quadratic, so its gradient
grows with ΔW_t, which is small when it is measured; hence

    c = mean_{i<t} ‖ΔW_i‖_F / ‖ΔW_t‖_F

over all matrices jointly, and ρ is the ratio once the new update is as large as an earlier one.

W_past is the sum whatever the consolidation; with `none` it holds an adapter off from updates that
it never meets.
"""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from nlora.carriers.lora import Lora
from nlora.lowrank.checks import Gradients
from nlora.lowrank.factors import Factors, concatenate, recompress
from nlora.lowrank.penalties import entrywise_overlap_and_grads, frobenius_and_grads
from nlora.methods.base import Learner, Penalty, PerStage, Stage, per_stage
from nlora.methods.lora import LoraMethod, LoraSettings
from nlora.methods.weight import Weighted, ready


class EllaSettings(LoraSettings):
    """The overlap's weight. The paper's depend on the order; the default here is a first value."""

    ella_weight: PerStage = Field(
        0.2, description="weight of the overlap with earlier updates, one value or one per stage"
    )
    ella_unit: Literal["relative", "sum"] = Field(
        "relative",
        description="what ella_weight means: relative to the task's gradient norm once the update "
        "is as large as earlier ones, or the λ of public scripts, of a sum over B·A without α/r",
    )


class PastOverlap(Weighted):
    """λ Σ ‖ΔW ⊙ W_past‖²_F over the matrices of a LoRA carrier."""

    name = "ella"

    def __init__(self, carrier: Lora, weight: float, relative: bool, steps: int) -> None:
        named = carrier.factors()
        super().__init__(named.values(), weight, relative, steps)
        self.past = [_sum([update[name] for update in carrier.past]) for name in named]
        sizes = [_size(list(update.values())) for update in carrier.past]
        self.size = sum(sizes) / len(sizes)
        """mean_{i<t} ‖ΔW_i‖_F"""

    def value_and_grads(self) -> tuple[Tensor, Gradients]:
        """The overlap, summed over the matrices."""
        return entrywise_overlap_and_grads(self.factors, self.past)

    def given(self) -> float:
        """λ/s⁴: both sides of the published overlap are without the scaling."""
        return self.weight / self.factors[0].scaling ** 4

    def growth(self) -> float:
        """How many times larger an earlier update is."""
        return self.size / _size(self.factors)


def _size(factors: list[Factors]) -> float:
    """‖ΔW‖_F over all matrices."""
    return float(frobenius_and_grads(factors)[0].double().sqrt())


@torch.no_grad()
def _sum(updates: list[Factors]) -> Factors:
    """Their sum, exactly, of a rank that does not grow beyond that of the matrix."""
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

    def penalties(self, learner: Learner, stage: Stage) -> list[Penalty]:
        """The overlap from the second task on, beside the penalty of every LoRA method."""
        terms = super().penalties(learner, stage)
        s = self.settings
        weight = per_stage(s.ella_weight, stage.index, "ella_weight")
        if weight and learner.carrier.past:
            overlap = PastOverlap(learner.carrier, weight, s.ella_unit == "relative", stage.steps)
            terms.append(ready(overlap, stage))
        return terms
