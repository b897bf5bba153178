"""Routing by the input: which task an example belongs to, in closed form.

De-LoRA keeps a LoRA adapter per task and chooses among them by linear discriminant analysis on what
the frozen base model makes of the raw text, without prompt: e(x) is the mean of its last hidden
states (`Context.states`; with `route_by=prompt` of the whole prompt). Ours reads with the first
half of its layers, then the final norm: it is right as often and costs half
(docs/results/routing.md). Of each task t the mean μ_t is kept and its scatter added to a pooled S;
no text is. With n texts of T tasks and d dimensions

    Σ = S/(n − T),  Σ ← (1 − γ)·Σ + γ·(tr Σ/d)·I,  γ = 0.01
    task of x = argmax_t e(x)ᵀΣ⁻¹μ_t − ½·μ_tᵀΣ⁻¹μ_t

in float64. With γ = 1 it is the nearest mean (`router=nearest-mean`). It needs no old data and no
task identity, but the adapters are kept one by one.

A router also knows what it cannot tell. The features of a fifth of each task's texts are kept, and
taken out of the statistics exactly where they are asked (a mean and a scatter lose what a row gave
them). On these held-out features it is measured how often one task is taken for another, how far
texts of a task lie from its mean, √((e − μ_t)ᵀΣ⁻¹(e − μ_t)), and by what the scores must be divided
to be log-probabilities. The router in use has seen all texts.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import ceil
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from nlora.backbones.states import half_of_layers
from nlora.backbones.structure import base_model
from nlora.data.messages import plain
from nlora.data.task import Example, sample
from nlora.methods.base import Route
from nlora.methods.context import Context
from nlora.methods.parts.lora import RouterState

T = TypeVar("T")

TEXTS = 1000
"""Training texts of a task that are looked at, at most."""
SHRINKAGE = 0.01
HELD_OUT = 200
"""Texts of a task that are held out to measure the router: a fifth, and at most so many."""
ENOUGH = 20
"""Held-out texts from which on it is said how far is too far."""
UNCLEAR = 0.2
"""Of the texts taken for one of two tasks, the share taken for the other one from which on the two
count as not told apart."""
ROWS = 4096
"""Texts that are compared with all tasks at a time."""
TEMPERATURES = tuple(1.5**i for i in range(24))


class Fitted(NamedTuple):
    """Discriminant analysis, ready to be asked."""

    spread: Tensor
    """Σ, (d, d)."""
    weights: Tensor
    """Σ⁻¹μ, (d, T)."""
    offsets: Tensor
    """½·μᵀΣ⁻¹μ, (T,)."""

    @classmethod
    def of(cls, means: Tensor, scatter: Tensor, texts: int, rule: str = "discriminant") -> "Fitted":
        """Of means (T, d) and the scatter (d, d) of so many texts.

        By the rule `nearest-mean` texts are taken to spread the same in all directions.
        """
        size = len(scatter)
        spread = scatter / max(texts - len(means), 1)
        level = float(spread.trace()) / size
        shrinkage = 1.0 if rule == "nearest-mean" else SHRINKAGE
        spread = (1 - shrinkage) * spread + shrinkage * max(level, 1e-12) * torch.eye(size)
        weights = torch.linalg.solve(spread, means.T)  # (d, T): Σ⁻¹μ
        return cls(spread, weights, 0.5 * (means.T * weights).sum(0))

    def scores(self, features: Tensor) -> Tensor:
        """Of features (n, d) for each task, (n, T)."""
        return features @ self.weights - self.offsets

    def distances(self, features: Tensor, scores: Tensor) -> Tensor:
        """How far features (n, d) lie from the mean of each task, (n, T)."""
        half = torch.linalg.solve_triangular(
            torch.linalg.cholesky(self.spread), features.T, upper=False
        )
        return (half.square().sum(0)[:, None] - 2 * scores).clamp(min=0).sqrt()


class Router:
    """Chooses by what it keeps of the stages' texts, or of their prompts."""

    def __init__(
        self,
        state: RouterState,
        by: str = "text",
        quantile: float = 0.99,
        rule: str = "discriminant",
    ) -> None:
        self.state = state
        self.by = by
        self.quantile = quantile
        self.rule = rule

    def learn(self, ctx: Context) -> None:
        """Take up the texts of one more stage."""
        stage = ctx.stage
        examples = [e for data in stage.tasks for e in sample(data.train, TEXTS, stage.seed)]
        known = {ctx.stage_of(data.name) for data in stage.tasks} & {*self.state.stages}
        if not self.state.texts:
            self.state.layers = half_of_layers(base_model(ctx.model))
        self.add(stage.index, self.features(ctx, examples), *known)

    def features(self, ctx: Context, examples: Sequence[Example]) -> Tensor:
        """What the router sees of examples, (n, d)."""
        if self.by == "prompt":
            return ctx.prompt_states(examples, self.state.layers)
        return ctx.states([plain(e.text) for e in examples], self.state.layers)

    def add(self, stage: int, features: Tensor, before: int | None = None) -> None:
        """Take up the features (n, d) of one more stage.

        `before` is the stage that has learned the same task: the texts of both count as one
        stage's, which is the new one.
        """
        mean = features.mean(0)
        centred = features - mean
        scatter = centred.T @ centred
        count = min(HELD_OUT, len(features) // 5)
        chosen = torch.arange(count) * len(features) // max(count, 1)  # evenly, in their order
        held, number = features[chosen].float(), len(features)
        if before is not None:
            earlier, old, old_held = self._without(before)
            shift = mean - old
            scatter += (earlier * number / (earlier + number)) * torch.outer(shift, shift)
            mean = (earlier * old + number * mean) / (earlier + number)
            held, number = torch.cat([old_held, held]), earlier + number
        self.state.texts += len(features)
        known = self.state.scatter
        self.state.scatter = scatter if known is None else known + scatter
        self.state.means.append(mean)
        self.state.stages.append(stage)
        self.state.counts[str(stage)] = number
        if len(held):
            self.state.held_out[str(stage)] = held
        self._measure()

    def take_out(self, stage: int) -> None:
        """Choose this stage no more. How its texts spread stays in the pooled scatter."""
        if stage not in self.state.stages:
            return
        place = self.state.stages.index(stage)
        del self.state.stages[place], self.state.means[place]
        for known in (self.state.counts, self.state.held_out, self.state.limits):
            known.pop(str(stage), None)
        self._measure()

    def _without(self, stage: int) -> tuple[int, Tensor, Tensor]:
        """Take a stage out whose scatter stays: its number of texts, mean, and held-out features.

        A state of nlora 0.1 has no numbers; its stages then count the same.
        """
        state = self.state
        place, several = state.stages.index(stage), len(state.stages)
        state.stages.pop(place)
        mean = state.means.pop(place)
        held = state.held_out.pop(str(stage), torch.empty(0, len(mean)))
        return state.counts.pop(str(stage), max(state.texts // several, 1)), mean, held

    def fitted(self) -> Fitted:
        """The router in use."""
        means = torch.stack(self.state.means)
        return Fitted.of(means, self._scatter, self.state.texts, self.rule)

    @property
    def _scatter(self) -> Tensor:
        assert self.state.scatter is not None, "no stage yet"
        return self.state.scatter

    def without_held_out(self) -> Fitted:
        """The router that has not seen the held-out features."""
        means, scatter, texts = [], self._scatter.clone(), self.state.texts
        for stage, mean in zip(self.state.stages, self.state.means, strict=True):
            held, count = self.state.held_out.get(str(stage)), self.state.counts.get(str(stage))
            if held is None or count is None:
                means.append(mean)
                continue
            away = held.double() - mean
            shift = -away.sum(0) / (count - len(held))  # from the old mean to that of the rest
            scatter -= away.T @ away + (count - len(held)) * torch.outer(shift, shift)
            means.append(mean + shift)
            texts -= len(held)
        return Fitted.of(torch.stack(means), scatter, texts, self.rule)

    def _measure(self) -> None:
        """Learn from the held-out features how far is too far, and how sure scores are."""
        held = {stage: rows.double() for stage, rows in self.state.held_out.items()}
        if not held:
            return
        router, limits, scores, own = self.without_held_out(), {}, [], []
        for stage, rows in held.items():
            place = self.state.stages.index(int(stage))
            scores.append(router.scores(rows))
            own += [place] * len(rows)
            if len(rows) >= ENOUGH:
                away = router.distances(rows, scores[-1])[:, place].sort().values
                # The rank of conformal prediction; the largest where there are too few texts.
                rank = min(ceil((len(rows) + 1) * self.quantile), len(rows))
                limits[stage] = float(away[rank - 1])
        self.state.limits = limits
        self.state.temperature = _temperature(torch.cat(scores), torch.tensor(own))

    def confusion(self) -> dict[int, dict[int, int]]:
        """By stage for how many of its held-out texts which stages are taken, if any."""
        router, found = self.without_held_out(), {}
        for stage, rows in self.state.held_out.items():
            taken = Counter(router.scores(rows.double()).argmax(1).tolist())
            found[int(stage)] = {self.state.stages[i]: taken[i] for i in sorted(taken)}
        return found

    def report(self, names: Mapping[int, str]) -> tuple[dict[str, dict[str, int]], list[str]]:
        """The confusion of tasks of these names, and a line for each two not told apart."""
        found = {
            names[stage]: {names[other]: count for other, count in taken.items()}
            for stage, taken in self.confusion().items()
        }
        return found, unclear([names[stage] for stage in self.state.stages], found, self.by)

    def alike(self) -> dict[int, list[int]]:
        """By stage those that it cannot be told apart from."""
        found: dict[int, list[int]] = {}
        for one, other in mistaken(self.confusion(), self.state.stages):
            found.setdefault(one, []).append(other)
            found.setdefault(other, []).append(one)
        return found

    def choose(self, features: Tensor) -> list[int]:
        """The stage of each row of features (n, d)."""
        return [self.state.stages[i] for i in self.fitted().scores(features).argmax(1).tolist()]

    def routes(self, ctx: Context, examples: Sequence[Example]) -> list[Route]:
        """The stage to answer each example with, and how sure that is."""
        return self.judge(self.features(ctx, examples))

    def judge(self, features: Tensor) -> list[Route]:
        """The stage of each row of features (n, d), with what is known of the choice."""
        router = self.fitted()
        limits: Mapping[str, float] = self.state.limits
        found = []
        for part in features.split(ROWS):
            scores = router.scores(part)
            chosen = scores.argmax(1)
            stages = [self.state.stages[i] for i in chosen.tolist()]
            sure = (scores / self.state.temperature).softmax(1).amax(1).tolist()
            away = router.distances(part, scores).gather(1, chosen[:, None])[:, 0].tolist()
            found += [
                Route(stage, confidence, distance, limits.get(str(stage)))
                for stage, confidence, distance in zip(stages, sure, away, strict=True)
            ]
        return found


def _temperature(scores: Tensor, own: Tensor) -> float:
    """By what to divide scores (n, T) so that they are log-probabilities of these tasks (n,)."""
    losses = [torch.nn.functional.cross_entropy(scores / t, own) for t in TEMPERATURES]
    return TEMPERATURES[int(torch.stack(losses).argmin())]


def mistaken(
    confusion: Mapping[T, Mapping[T, int]], order: Sequence[T]
) -> dict[tuple[T, T], float]:
    """The pairs of tasks that the router cannot tell apart, and how often one is the other.

    `confusion` has, by task, for how many of its held-out texts which tasks are taken. The pairs
    are in the `order` of the tasks.
    """
    place = {task: i for i, task in enumerate(order)}
    pairs = {
        (max(place[one], place[other]), min(place[one], place[other]))
        for one, taken in confusion.items()
        for other in taken
        if other != one and other in confusion
    }
    found = {}
    for later, earlier in sorted(pairs):
        one, other = order[later], order[earlier]
        wrong = confusion[one].get(other, 0) + confusion[other].get(one, 0)
        asked = wrong + confusion[one].get(one, 0) + confusion[other].get(other, 0)
        if wrong >= UNCLEAR * max(asked, 1) and wrong > 1:
            found[other, one] = wrong / asked
    return found


def unclear(names: Sequence[str], confusion: Mapping[str, Mapping[str, int]], by: str) -> list[str]:
    """A sentence for each two tasks that the router cannot tell apart (`mistaken`)."""
    return [
        f"{one} and {other} cannot be told apart by their {by}s ({round(100 * share)} % taken for "
        "the other): name the task when you predict"
        for (one, other), share in mistaken(confusion, names).items()
    ]
