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
one more forward pass per step, and a copy of what is trained: of an adapter with carrier `lora`
(one adapter, continued from task to task), of the whole model with carrier `full`. With weight 0
over all parameters this is `seq-ft`.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from nlora.methods.base import Learner, PerStage, Stage, per_stage
from nlora.methods.lora import LoraMethod, LoraSettings
from nlora.models.logits import answer_logits


class LwfSettings(LoraSettings):
    """What is trained, and how near the answers stay."""

    carrier: Literal["full", "lora"] = Field("full", description="what is trained")
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

    def __init__(self, settings: LwfSettings) -> None:
        super().__init__(settings)
        self.weight = 0.0
        """w at this stage."""
        self.previous: Callable[[], AbstractContextManager[None]] | None = None

    @property
    def carrier(self) -> str:
        """All parameters or LoRA, as set."""
        return self.settings.carrier

    def own_weight(self) -> str | None:
        """The divergence's weight, unless there is a penalty."""
        return super().own_weight() or "distillation_weight"

    def first_stage(self) -> dict[str, Any]:
        """The settings of every LoRA method alone: there is no model before the first task."""
        return self.lora_first_stage()

    def begin(self, learner: Learner, stage: Stage) -> None:
        """Go on from the model as it stands, and keep it as the teacher from the second task on."""
        weight = self.settings.distillation_weight
        weight = per_stage(weight, stage.index, "distillation_weight")
        self.weight = weight if stage.index > 1 else 0.0
        learner.carrier.begin(continued=True, keep_previous=self.weight > 0)
        self.previous = learner.carrier.previous

    def loss(
        self, model: nn.Module, batch: Mapping[str, Tensor], tokens: Tensor
    ) -> dict[str, Tensor]:
        """The task's cross-entropy, and the divergence from the model before the task."""
        old = self._before(model, batch) if self.weight else None
        logits, targets = answer_logits(model, batch)
        logits = logits.float()
        terms = {"task": cross_entropy(logits, targets, reduction="sum") / tokens}
        if old is not None:
            new = log_softmax(logits / self.settings.temperature, dim=-1)
            divergence = kl_div(new, old, reduction="sum", log_target=True)
            terms["distillation"] = self.weight * divergence / tokens
        return terms

    @torch.no_grad()
    def _before(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """log p_old (n, vocabulary) at the answers of a batch, without dropout."""
        assert self.previous is not None
        training = model.training
        model.eval()
        with self.previous():
            logits, _ = answer_logits(model, batch)
        model.train(training)
        return log_softmax(logits.float() / self.settings.temperature, dim=-1)
