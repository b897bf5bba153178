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

With w = `auto` its weight is found as that of penalties (`parts.auto`), from the gradients of both
terms over the first half of the steps.

The old model is the same model with the values its parameters had when the stage began. That costs
one more forward pass per step, and a copy of what is trained: of an adapter with adapter `lora`
(one adapter, continued from task to task), of the whole model with adapter `full`. With weight 0
over all parameters this is `seq-ft`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import Field

from nlora import processes
from nlora.methods.base import Weight, per_stage
from nlora.methods.parts.auto import AUTO, Rungs, averaged, dev_losses, half
from nlora.methods.parts.lora import AnyAdapter, LoraMethod, LoraSettings, LoraState
from nlora.methods.parts.terms import MOMENTUM, norm

if TYPE_CHECKING:
    from torch import Tensor

    from nlora.methods.context import Batch, Context


class LwfSettings(LoraSettings):
    """What is trained, and how near the answers stay."""

    adapter: AnyAdapter = Field("full", description="what is trained")
    distillation_weight: Weight = Field(
        1.0, description="w, the weight of the divergence, one value or one per stage, or auto"
    )
    temperature: float = Field(2.0, gt=0, description="T, which flattens the answers compared")


@dataclass
class LwfState(LoraState):
    """Of a stage in hand whose weight is `auto`; nothing remains."""

    rungs: Rungs = field(default_factory=Rungs, metadata={"unless_default": True})
    average: dict[str, Tensor] = field(default_factory=dict, metadata={"unless_default": True})
    """By parameter the moving average of the task's gradient."""
    term: dict[str, Tensor] = field(default_factory=dict, metadata={"unless_default": True})
    """By parameter the divergence's gradient where λ_0 is measured."""


class Lwf(LoraMethod):
    """Train task after task, distilling from the model as it was before the task."""

    name = "lwf"
    summary = "the model before the task teaches its own answers to the task's inputs"
    paper = "arXiv:1606.09282"
    continues = True
    Settings = LwfSettings
    State = LwfState
    settings: LwfSettings
    state: LwfState
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
        ctx.adapter.begin(continued=True, keep_previous=self._climbs(ctx) or self._weight(ctx) > 0)
        self.state.rungs, self.state.average, self.state.term = Rungs(), {}, {}

    def loss(self, ctx: Context, batch: Batch) -> dict[str, Tensor]:
        """The task's cross-entropy, and the divergence from the model before the task."""
        from torch.nn.functional import kl_div, log_softmax

        weight, measuring = self._weight(ctx), self._measuring(ctx)
        old = self._before(ctx, batch) if weight or measuring else None
        logits, targets = ctx.logits(batch)
        logits = logits.float()
        terms = {"task": self.answer_loss(ctx, batch, logits, targets)}
        if old is not None:
            new = log_softmax(logits / self.settings.temperature, dim=-1)
            divergence = kl_div(new, old, reduction="sum", log_target=True) / ctx.tokens
            terms["distillation"] = weight * divergence
            if measuring:
                self._measure(ctx, divergence)
        elif self._climbs(ctx):
            terms["distillation"] = 0.0 * terms["task"].detach()
        return terms

    @property
    def keeps_gradients(self) -> bool:
        """Where the weight is found by them."""
        return self.settings.distillation_weight == AUTO

    def after_step(self, ctx: Context) -> None:
        """Where the weight is `auto`: average the task's gradient, and judge the rungs."""
        if not self._climbs(ctx):
            return
        assert ctx.step is not None
        rungs, trained = self.state.rungs, ctx.adapter.trained()
        if ctx.step.number < half(ctx.step):
            for name, parameter in trained.items():
                self._average(name, ctx.step.gradients.get(parameter))
        if self._measuring(ctx):
            g = averaged(norm([*self.state.average.values()]), half(ctx.step))
            h = norm([processes.summed(own) for own in self.state.term.values()])
            rungs.measure(g, h)
            self.state.average, self.state.term = {}, {}
        rungs.judge(ctx.step, lambda: dev_losses(ctx), [*trained.values()])

    def end(self, ctx: Context) -> None:
        """Nothing of the climb stays but its notes."""
        super().end(ctx)
        self.state.rungs.accepted = []

    def notes(self, ctx: Context) -> dict[str, Any]:
        """How the weight climbed, where it did."""
        found = super().notes(ctx)
        if not self._climbs(ctx):
            return found
        rungs, self.state.rungs = self.state.rungs, Rungs()
        weight = (rungs.factor or 0.0) * 2**rungs.rung if rungs.rung >= 0 else 0.0
        return {**found, "distillation": rungs.notes(weight, ctx.stage)}

    def _climbs(self, ctx: Context) -> bool:
        """Whether the weight is found in this stage."""
        return self.settings.distillation_weight == AUTO and ctx.stage.index > 1

    def _measuring(self, ctx: Context) -> bool:
        """Whether this is the last step without the divergence."""
        return self._climbs(ctx) and ctx.step is not None and ctx.step.number + 1 == half(ctx.step)

    def _measure(self, ctx: Context, divergence: Tensor) -> None:
        """Add the gradient of a micro-batch's divergence."""
        import torch

        trained = ctx.adapter.trained()
        found = torch.autograd.grad(
            divergence, [*trained.values()], retain_graph=True, allow_unused=True
        )
        for name, gradient in zip(trained, found, strict=True):
            if gradient is not None:
                known = self.state.term.get(name)
                self.state.term[name] = gradient if known is None else known + gradient

    def _average(self, name: str, gradient: Tensor | None) -> None:
        if gradient is None:
            return
        known = self.state.average.get(name)
        new = gradient.float() * (1 - MOMENTUM)
        self.state.average[name] = new if known is None else MOMENTUM * known + new

    def _weight(self, ctx: Context) -> float:
        """w at this step; there is no model before the first stage."""
        if self._climbs(ctx):
            return self.state.rungs.weight(ctx.step) if ctx.step is not None else 0.0
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
