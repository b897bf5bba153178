"""Methods of kinds that the contract was made for, each a few lines; the file is their plugin."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nlora.adapters.lora import Lora
from nlora.lowrank.factors import Factors
from nlora.merging.base import Consolidation
from nlora.methods.base import Method, State
from nlora.methods.inc_lora import IncLora
from nlora.methods.parts.lora import LoraSettings


class LoraFa(IncLora):
    """LoRA-FA (arXiv:2308.03303): A stays as it was drawn."""

    name = "lora-fa"
    summary = "IncLoRA with frozen A"
    frozen = ("A",)


class Scaled(IncLora):
    """One trained scalar multiplies each earlier update."""

    name = "scaled"
    summary = "IncLoRA with scalars on earlier updates"
    scales_earlier = True


@dataclass
class Spaces(State):
    known: dict[str, Tensor] = field(default_factory=dict)
    """By matrix, the sum over tasks of the mean of x xᵀ of its inputs x."""
    of_task: dict[str, Tensor] = field(default_factory=dict)
    """The same of the task in hand, summed over its steps."""


def span(covariance: Tensor, count: int) -> Tensor:
    """The first directions of the inputs, (count, in)."""
    return torch.linalg.eigh(covariance.double()).eigenvectors[:, -count:].T.to(covariance)


class Away(Method):
    """Gradients of A are kept out of the span of what earlier tasks read."""

    name = "away"
    summary = "gradients outside the inputs of earlier tasks"
    State = Spaces
    needs_covariances = True

    def gradients(self, ctx):
        state, found = self.state, {}
        for name, factors in ctx.adapter_as(Lora).factors().items():
            new = ctx.step.covariances[name]
            state.of_task[name] = state.of_task.get(name, 0.0) + new / ctx.step.total
            if name in state.known:
                basis = span(state.known[name], 4)
                found[factors.A] = factors.A.grad - factors.A.grad @ basis.T @ basis
        return found

    def end(self, ctx):
        state = self.state
        for name, covariance in state.of_task.items():
            state.known[name] = state.known.get(name, 0.0) + covariance
        state.of_task = {}


class InfLora(Method):
    """As InfLoRA (arXiv:2404.00228): A reads what the task's inputs have outside the old span."""

    name = "inf-lora"
    summary = "A designed from the task's inputs, and frozen"
    State = Spaces
    frozen = ("A",)

    def start(self, ctx):
        new = ctx.covariances(ctx.stage.tasks[0].train)
        known = self.state.known

        def values(name: str, factors: Factors):
            covariance = new[name]
            if name in known:
                basis = span(known[name], 8)
                outside = torch.eye(len(covariance)) - basis.T @ basis
                covariance = outside @ covariance @ outside
            return span(covariance, len(factors.A)), torch.zeros_like(factors.B)

        return values

    def end(self, ctx):
        for name, covariance in ctx.covariances(ctx.stage.tasks[0].train).items():
            self.state.known[name] = self.state.known.get(name, 0.0) + covariance


class Average(Consolidation):
    """The mean of the updates."""

    name = "average"
    summary = "the mean of the updates"

    def merge(self, updates: Sequence[Factors]) -> Tensor:
        return sum(update.delta() for update in updates) / len(updates)


class AveragedSettings(LoraSettings):
    consolidation: str = "average"


class Averaged(IncLora):
    """IncLoRA whose updates are averaged."""

    name = "averaged"
    summary = "IncLoRA with a consolidation of its own"
    Settings = AveragedSettings


class Choosy(IncLora):
    """Refuses a stage of one task, and remembers each that it has trained."""

    name = "choosy"
    summary = "IncLoRA that does not accept every stage"

    @dataclass
    class State(IncLora.State):
        trained: list[str] = field(default_factory=list)

    def end(self, ctx):
        super().end(ctx)
        self.state.trained.append(ctx.stage.name)

    def accept(self, ctx, before, after):
        assert set(after) == {data.name for data in ctx.stream[: ctx.stage.index]}
        assert set(before) == {data.name for data in ctx.stream[: ctx.stage.index - 1]}
        return ctx.stage.name != "size"

    def metric(self, task):
        return lambda rows: 100.0 * sum("e" in row.text for row in rows) / len(rows)
