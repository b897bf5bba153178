"""LwF: while a task is trained, the model's answers stay near those it gave before.

"Learning without Forgetting" (arXiv:1606.09282). To the loss of a task is added, from the second
task on,

    w · KL(p_old ‖ p_new),  p = softmax(logits / T),  T = 2, w = 1

on the new task's own inputs, at the tokens of its answers, which are given to both models
(teacher forcing); summed over the vocabulary, averaged over tokens like the task's loss. No old
data is needed. The paper writes a cross-entropy against p_old, which has the same gradient, and
leaves T² out; with w = T² the term is that of Hinton's distillation (arXiv:1503.02531).

Published code differs: Avalanche has this term; Mammoth w = 0.5; TRACE turns the divergence round,
KL(p_new ‖ p_old), and sums over tokens. The paper's warm-up of a new output layer has no
counterpart here, since all tasks share the vocabulary.

The old model is the same model with the values its parameters had when the stage began. That costs
one more forward pass per step, and a copy of what is trained: of an adapter with adapter `lora`
(one adapter, continued from task to task), of the whole model with adapter `full`. With weight 0
over all parameters this is `seq-ft`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from nlora.methods.base import PerStage, per_stage
from nlora.methods.parts.lora import AnyAdapter, LoraMethod, LoraSettings

if TYPE_CHECKING:
    from torch import Tensor

    from nlora.methods.context import Batch, Context


class LwfSettings(LoraSettings):
    """What is trained, and how near the answers stay."""

    adapter: AnyAdapter = Field("full", description="what is trained")
    distillation_weight: PerStage = Field(
        1.0, description="w, the weight of the divergence, one value or one per stage"
    )
    temperature: float = Field(2.0, gt=0, description="T, which flattens the answers compared")


class Lwf(LoraMethod):
    """Train task after task, distilling from the model as it was before the task."""

    name = "lwf"
    summary = "the model before the task teaches its own answers to the task's inputs"
    paper = "arXiv:1606.09282"
    continues = True
    Settings = LwfSettings
    settings: LwfSettings
    needs_previous = True

    @property
    def extra_passes(self) -> float:
        """The teacher's."""
        return 1.0

    def own_weight(self) -> str | None:
        """The divergence's weight, unless there is a penalty."""
        return super().own_weight() or "distillation_weight"

    def first_stage(self) -> dict[str, Any]:
        """The settings of every LoRA method alone: there is no model before the first task."""
        return self.lora_first_stage()

    def begin(self, ctx: Context) -> None:
        """Go on from the model as it stands, and keep it as the teacher from the second task on."""
        ctx.adapter.begin(continued=True, keep_previous=self._weight(ctx) > 0)

    def loss(self, ctx: Context, batch: Batch) -> dict[str, Tensor]:
        """The task's cross-entropy, and the divergence from the model before the task."""
        from torch.nn.functional import kl_div, log_softmax

        weight = self._weight(ctx)
        old = self._before(ctx, batch) if weight else None
        logits, targets = ctx.logits(batch)
        logits = logits.float()
        terms = {"task": self.answer_loss(ctx, batch, logits, targets)}
        if old is not None:
            new = log_softmax(logits / self.settings.temperature, dim=-1)
            divergence = kl_div(new, old, reduction="sum", log_target=True)
            terms["distillation"] = weight * divergence / ctx.tokens
        return terms

    def _weight(self, ctx: Context) -> float:
        """w at this stage; there is no model before the first."""
        weight = self.settings.distillation_weight
        weight = per_stage(weight, ctx.stage.index, "distillation_weight")
        return weight if ctx.stage.index > 1 else 0.0

    def _before(self, ctx: Context, batch: Batch) -> Tensor:
        """log p_old (n, vocabulary) at the answers of a batch, without dropout."""
        import torch

        from nlora.backbones.states import evaluating

        with torch.no_grad(), ctx.previous(), evaluating(ctx.network or ctx.model):
            logits, _ = ctx.logits(batch)
        return (logits.float() / self.settings.temperature).log_softmax(-1)
