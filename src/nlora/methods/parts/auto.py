"""A term's weight without tuning (`l1: auto`): rungs, climbed while the task stays learned.

Half of a stage's steps are without the penalty. Then λ climbs, in rungs of equally many steps,

    λ_j = 2^j · λ_0,   λ_0 = ρ_0·‖g‖ / (c·‖h‖),   ρ_0 = 0.01,   j = 0 … 7

with g the moving average of the task's gradient over the first half, h that of the penalty at its
end and c as in `parts.terms`. After each rung the loss of the task's own dev examples is measured,
the right answers given. Of the losses of the same examples now and at the lowest so far (the end of
the first half counts), with d the mean difference: where

    d > max(standard error of d, 1 % of the lowest)

the rung is not accepted, the trained parameters go back to the end of the rung before it, and what
is left of the stage's steps is spent at that rung's λ (none, where the first is not accepted). The
optimiser's moments stay. So a stage has as many steps as any other, and eight passes over the dev
examples more, without gradients.

Dev examples are those of the task's dev set that are no test texts, at most 256. Where they are
fewer than 32, a fifth of the training examples (at least 32, at most half) is held out instead, and
others are trained on twice in their place. No test example is read.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from nlora import processes
from nlora.data.task import Example, sample
from nlora.errors import NloraError
from nlora.methods.base import Term
from nlora.methods.parts.terms import MOMENTUM, Weighted, norm, of_trained

if TYPE_CHECKING:
    from torch import Tensor

    from nlora.data.task import TaskData
    from nlora.methods.context import Context, Stage, Step
    from nlora.methods.settings import Settings

AUTO = "auto"
FIRST = 0.01
RUNGS = 8
ENOUGH = 32
MOST = 256
WORSE = 0.01
"""How much worse, relative to the lowest loss, a rung may be whatever its standard error."""


def automatic(settings: Settings) -> list[str]:
    """The names of the settings that are `auto`."""
    return [name for name in type(settings).model_fields if getattr(settings, name) == AUTO]


def check(tasks: Sequence[TaskData]) -> None:
    """Raise NloraError for a task that has nothing to judge a weight by."""
    for data in tasks:
        if not judged_by(data, 0)[0]:
            raise NloraError(
                f"task '{data.name}': a weight that is 'auto' needs dev examples, or two training "
                "examples at least"
            )


def judged_by(data: TaskData, seed: int) -> tuple[Sequence[Example], str]:
    """The dev examples of a task, and what they are taken of: `dev` or `training`."""
    tested = {example.text for example in data.test}
    own = [example for example in data.dev if example.text not in tested]
    if len(own) >= ENOUGH:
        return sample(own, MOST, seed), "dev"
    count = min(max(ENOUGH, len(data.train) // 5), MOST, len(data.train) // 2)
    return sample(data.train, count, seed), "training"


def without_held_out(stage: Stage) -> list[Example]:
    """The stage's training examples, others in place of those that are held out."""
    found: list[Example] = []
    for data in stage.tasks:
        chosen, of = judged_by(data, stage.seed)
        held = set(map(id, chosen)) if of == "training" else set()
        kept = [example for example in data.train if id(example) not in held]
        more = random.Random(stage.seed).choices(kept, k=len(held)) if kept else []
        found += [*kept, *more]
    return found


@dataclass
class Rungs:
    """How far a weight has climbed in a stage, judged after every rung."""

    factor: float | None = None
    """λ_0, once it is measured."""
    rung: int = 0
    climbing: bool = True
    measured: dict[str, float] = field(default_factory=dict)
    told: list[dict[str, Any]] = field(default_factory=list)
    """Of each rung: ρ, the mean loss, how much above the lowest, the limit, and the verdict."""
    best: list[float] = field(default_factory=list)
    """The losses of the dev examples where their mean was lowest."""
    accepted: list[Tensor] = field(default_factory=list)
    """The trained parameters at the end of the last accepted rung."""

    def weight(self, step: Step) -> float:
        """λ at a step; 0 in the first half, and where not even a first rung was accepted."""
        if step.number < half(step) or self.rung < 0 or self.factor is None:
            return 0.0
        return self.factor * 2**self.rung

    def measure(self, task: float, term: float, growth: float = 1.0) -> None:
        """Find λ_0, of the norms of the task's gradient and of the term's."""
        self.measured = {"task_gradient": task, "penalty_gradient": term}
        self.factor = FIRST * task / (growth * term) if term else 0.0

    def judge(
        self, step: Step, losses: Callable[[], list[float]], parameters: Sequence[Tensor]
    ) -> None:
        """Judge the rung where it ends with this step, and put the parameters back if it must."""
        done = step.number + 1
        if done == half(step):
            self.best, self.accepted = losses(), _copied(parameters)
        on_rung, length = done - half(step), max((step.total - half(step)) // RUNGS, 1)
        if not self.climbing or on_rung <= 0 or on_rung % length or not self.accepted:
            return
        now = losses()
        worse, limit = compared(now, self.best)
        accepted = processes.from_main(worse <= limit)
        rho = FIRST * 2**self.rung
        row = {"rho": rho, "loss": fmean(now), "worse": worse, "limit": limit}
        self.told = [*self.told, {**row, "accepted": accepted}]
        if accepted:
            self.accepted = _copied(parameters)
            self.best = now if worse < 0 else self.best
            self.climbing = self.rung + 1 < RUNGS
            self.rung += self.climbing
        else:
            for parameter, values in zip(parameters, self.accepted, strict=True):
                parameter.data.copy_(values)
            self.climbing, self.rung = False, self.rung - 1

    def notes(self, weight: float, stage: Stage) -> dict[str, Any]:
        """λ as it was at the end, the rungs, and what they were judged by."""
        found = [judged_by(data, stage.seed) for data in stage.tasks]
        return {
            "lambda": weight,
            "rho": FIRST * weight / self.factor if self.factor else 0.0,
            "rungs": self.told,
            "dev": {
                "examples": sum(len(examples) for examples, _ in found),
                "of": ", ".join(dict.fromkeys(of for _, of in found)),
            },
            **self.measured,
        }


def half(step: Step) -> int:
    """How many of a stage's steps are without the penalty."""
    return step.total // 2


def dev_losses(ctx: Context) -> list[float]:
    """−ln p of the right answer of each dev example of the stage's tasks."""
    chosen = [e for data in ctx.stage.tasks for e in judged_by(data, ctx.stage.seed)[0]]
    return [-score for score in ctx.score(chosen)]


class Climbing:
    """A penalty without a weight of its own, at the λ of the rung in hand."""

    running = ("rungs", "weight", "_average")

    def __init__(self, inner: Weighted, ctx: Context) -> None:
        import torch

        self.name = inner.name
        self.inner = inner
        self.ctx = ctx
        self.parameters = ctx.adapter.trainable()
        self.rungs = Rungs()
        self.weight = 0.0
        """λ of the last step."""
        pairs = inner.value_and_pairs()[1]
        self._average = [torch.zeros_like(p, dtype=torch.float32) for p, _ in pairs]

    def __call__(self, step: Step) -> Term | None:
        """λ times the penalty; None in the first half, and where not even a first rung was."""
        import torch

        self.weight = 0.0
        if step.number >= half(step) and self.rungs.rung < 0:
            return None
        with torch.no_grad():
            value, pairs = self.inner.value_and_pairs()
            if step.number < half(step):
                for mean, (parameter, _) in zip(self._average, pairs, strict=True):
                    if (gradient := step.gradients.get(parameter)) is not None:
                        mean.lerp_(gradient.float(), 1 - MOMENTUM)
                return None
            if self.rungs.factor is None:
                self._measure(step, of_trained(pairs))
            self.weight = self.rungs.weight(step)
            return Term(self.weight * float(value), [(p, self.weight * g) for p, g in pairs])

    def after(self, step: Step) -> None:
        """Judge the rung where it ends here."""
        self.rungs.judge(step, lambda: dev_losses(self.ctx), self.parameters)

    def notes(self) -> dict[str, Any]:
        """As `Rungs.notes`."""
        return self.rungs.notes(self.weight, self.ctx.stage)

    def _measure(self, step: Step, gradients: Sequence[Tensor]) -> None:
        g, h = averaged(norm(self._average), half(step)), norm(gradients)
        self.rungs.measure(g, h, self.inner.growth() if h else 1.0)  # else there is no update yet
        self._average = []


def averaged(size: float, steps: int) -> float:
    """The norm of a moving average that began at 0, after so many steps, as if it had not."""
    return size / (1 - MOMENTUM**steps) if steps else 0.0


def _copied(parameters: Sequence[Tensor]) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in parameters]


def compared(losses: Sequence[float], best: Sequence[float]) -> tuple[float, float]:
    """The mean of paired differences to the lowest losses, and what it may be."""
    differences = [now - then for now, then in zip(losses, best, strict=True)]
    error = stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else 0.0
    return fmean(differences), max(error, WORSE * fmean(best))
