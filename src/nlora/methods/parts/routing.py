"""Routing by the input: which task an example belongs to, in closed form.

De-LoRA keeps a LoRA adapter per task and chooses among them by linear discriminant analysis on what
the frozen base model makes of the raw text, without prompt: e(x) is the mean of its last hidden
states (`Context.states`). Of each task t the mean μ_t is kept and its scatter added to a pooled S;
no text is. With n texts of T tasks and d dimensions

    Σ = S/(n − T),  Σ ← (1 − γ)·Σ + γ·(tr Σ/d)·I,  γ = 0.01
    task of x = argmax_t e(x)ᵀΣ⁻¹μ_t − ½·μ_tᵀΣ⁻¹μ_t

in float64. It needs no old data and no task identity, but the adapters are kept one by one.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nlora.data.task import Example, sample
from nlora.methods.context import Context

TEXTS = 1000
"""Training texts of a task that are looked at, at most."""
SHRINKAGE = 0.01


class Router:
    """Chooses by what a method's state keeps (`parts.lora.LoraState`)."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def learn(self, ctx: Context) -> None:
        """Take up the texts of one more stage."""
        stage = ctx.stage
        examples = [e for data in stage.tasks for e in sample(data.train, TEXTS, stage.seed)]
        self.add(stage.index, ctx.states([e.text for e in examples]))

    def add(self, stage: int, features: Tensor) -> None:
        """Take up the features (n, d) of one more stage."""
        state = self.state
        mean = features.mean(0)
        centred = features - mean
        scatter = centred.T @ centred
        state.scatter = scatter if state.scatter is None else state.scatter + scatter
        state.means.append(mean)
        state.stages.append(stage)
        state.texts += len(features)

    def choose(self, features: Tensor) -> list[int]:
        """The stage of each row of features (n, d)."""
        means = torch.stack(self.state.means)  # (T, d)
        size = len(self.state.scatter)
        spread = self.state.scatter / max(self.state.texts - len(means), 1)
        level = float(spread.trace()) / size
        spread = (1 - SHRINKAGE) * spread + SHRINKAGE * max(level, 1e-12) * torch.eye(size)
        weights = torch.linalg.solve(spread, means.T)  # (d, T): Σ⁻¹μ
        scores = features @ weights - 0.5 * (means.T * weights).sum(0)
        return [self.state.stages[i] for i in scores.argmax(1).tolist()]

    def route(self, ctx: Context, examples: Sequence[Example]) -> list[int]:
        """The stage to answer each example with."""
        return self.choose(ctx.states([e.text for e in examples]))
