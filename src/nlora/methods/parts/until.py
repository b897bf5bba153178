"""A stage ends early where it has moved the model far enough: the setting `max_kl`.

After each optimiser step the mean over answer tokens of KL(p_before ‖ p_now), in nats, is measured
on `PROMPTS` of the stage's own training examples, p_before being the model as the stage began. The
stage ends after the step with which it passes `max_kl`. That costs a forward pass over so many
examples per step. No test example is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nlora.data.task import sample
from nlora.methods.base import per_stage

if TYPE_CHECKING:
    from torch import Tensor

    from nlora.methods.context import Context
    from nlora.methods.settings import Settings

PROMPTS = 16


class MaxKl:
    """How far the model is from where the stage began, against a bound."""

    running = ("kl",)  # of the last step, when a checkpoint is of that

    def __init__(self, ctx: Context, bound: float) -> None:
        self.ctx = ctx
        self.bound = bound
        rows = ctx.encoder.all(sample(ctx.examples[: ctx.own], PROMPTS, ctx.stage.seed))
        self.batches = [batch for _, batch in ctx.batches(rows)]
        self.before = self._logits()
        self.kl = 0.0

    def reached(self) -> bool:
        """Whether the stage is to end here; called after each step."""
        from nlora.evaluation.divergence import divergences

        pairs = zip(self.before, self._logits(), strict=True)
        each = [divergences(then, now) for then, now in pairs]
        self.kl = float(sum(part.sum() for part in each)) / max(sum(map(len, each)), 1)
        return self.kl > self.bound

    def notes(self) -> dict[str, Any]:
        """What the stage should record: where it ended, and how far that is."""
        return {"max_kl": {"kl": self.kl, "ended_early": self.kl > self.bound}}

    def _logits(self) -> list[Tensor]:
        import torch

        from nlora.backbones.states import evaluating
        from nlora.fast.logits import answer_logits

        model = self.ctx.model
        with torch.no_grad(), evaluating(model):
            return [answer_logits(model, batch).logits for batch in self.batches]


def until(settings: Settings, ctx: Context) -> MaxKl | None:
    """What ends the stage early, if anything does."""
    bound = per_stage(settings.max_kl, ctx.stage.index, "max_kl")
    return MaxKl(ctx, bound) if bound else None
