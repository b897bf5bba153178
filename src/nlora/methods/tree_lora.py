"""TreeLoRA: an adapter is held near those earlier ones that are like it, matrix by matrix.

"TreeLoRA: Efficient Continual Learning via Layer-Wise LoRAs Guided by a Hierarchical
Gradient-Similarity Tree" (arXiv:2506.10355). One LoRA adapter, continued. Of each earlier task j
and matrix ℓ the mean a_jℓ of A over the task's steps is kept. In step n of N of a later task an
earlier task j(ℓ) is drawn for each matrix, and with ⟨·,·⟩ over all entries

    L = L_task · (1 − λ·n/N · R/[R]),   R = Σ_ℓ ⟨A_ℓ, a_j(ℓ)ℓ⟩,   λ = 0.5

where [·] is the value alone: what is drawn is aligned with, the more the longer the task goes on.
Which task is drawn is a bandit's choice by lower confidence bounds on distances, so that few of
them are computed. With x the mean so far of what is compared (A, or its gradient) and x_j that of
task j, in a step the distances ‖x_ℓ − x_j(ℓ)ℓ‖₁ of those drawn are measured, and

    s_jℓ = √ln(2N·(n + 1)(n + 2)) / √(2·times drawn) − mean distance measured

A task is drawn first by softmax_j Σ_ℓ s_jℓ; the s of its branch of the tree are multiplied by the
branch's median similarity (1.5 at most), and then each matrix draws by softmax_j s_jℓ/(max − min).
The tree splits the tasks, by matrix after matrix, at the median of ⟨x_j − x_{j−1}, their mean⟩.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field

from nlora.methods.base import PerStage, per_stage
from nlora.methods.parts.lora import LoraMethod, LoraSettings, LoraState

if TYPE_CHECKING:
    from torch import Tensor

    from nlora.methods.context import Batch, Context

GRADIENTS = " gradients"
LARGEST_FACTOR = 1.5
NEVER = 1e-5
"""Added to what may be 0 and is divided by."""


class TreeLoraSettings(LoraSettings):
    """How strongly, and by what."""

    tree_weight: PerStage = Field(
        0.5, description="λ, of alignment with earlier adapters, one value or one per stage"
    )
    compares: Literal["weights", "gradients"] = Field(
        "weights",
        description="what says that tasks are alike: the adapters' A (the published code) or its "
        "gradients (the paper)",
    )


@dataclass
class TreeLoraState(LoraState):
    """By matrix, a row per earlier task; and of the stage in hand, which a checkpoint keeps."""

    weights: dict[str, Tensor] = field(default_factory=dict)
    """The mean of A, (tasks, r·in)."""
    gradients: dict[str, Tensor] = field(default_factory=dict)
    """The mean of its gradient, where these are compared."""
    now: dict[str, Tensor] = field(default_factory=dict)
    """The sums of what becomes a row, (r·in,), as `MATRIX` and `MATRIX gradients`."""
    steps: int = 0
    drawn: Tensor | None = None
    """How often, (tasks, matrices)."""
    distances: Tensor | None = None
    """The sums of those measured, (tasks, matrices)."""


class Node(NamedTuple):
    """A branch of the tree: its tasks, and the median of their similarities to their mean."""

    tasks: list[int]
    similarity: float = 1.0
    branches: tuple[Node, ...] = ()


class TreeLora(LoraMethod):
    """One adapter, aligned with the adapters that earlier tasks like this one had."""

    name = "tree-lora"
    summary = "one LoRA adapter, continued; aligned with those of earlier tasks that are like it"
    paper = "arXiv:2506.10355"
    continues = True
    Settings = TreeLoraSettings
    State = TreeLoraState
    settings: TreeLoraSettings
    state: TreeLoraState

    def own_weight(self) -> str | None:
        """Alignment's, unless there is a penalty."""
        return super().own_weight() or "tree_weight"

    def begin(self, ctx: Context) -> None:
        """Nothing is known of the stage yet."""
        import torch

        super().begin(ctx)
        tasks = len(next(iter(self.state.weights.values()), ()))
        matrices = len(self.state.weights)
        self.state.now, self.state.steps = {}, 0
        self.state.drawn, self.state.distances = torch.zeros(2, tasks, matrices)

    def loss(self, ctx: Context, batch: Batch) -> dict[str, Tensor]:
        """The answers' loss, and its share for alignment from the second task on."""
        import torch

        terms = super().loss(ctx, batch)
        weight = per_stage(self.settings.tree_weight, ctx.stage.index, "tree_weight")
        if not (weight and self.state.weights and ctx.step is not None):
            return terms
        now = _factors(ctx)
        aligned = torch.zeros((), device=terms["task"].device)
        for j, (name, rows) in zip(self._draw(ctx), self.state.weights.items(), strict=True):
            aligned = aligned + (now[name].flatten() * rows[j].to(now[name])).sum()
        size = aligned.detach()
        share = weight * ctx.step.number / ctx.step.total
        return {**terms, "alignment": -share * terms["task"].detach() * aligned / (size + NEVER)}

    def after_step(self, ctx: Context) -> None:
        """Add the step to the means, and measure how far those drawn are."""
        import torch

        assert ctx.step is not None
        assert self.state.drawn is not None
        with torch.no_grad():
            chosen = self._draw(ctx) if self.state.weights else []
            for name, A in _factors(ctx).items():
                self._add(name, A)
                if self.settings.compares == "gradients":
                    found: Any = ctx.step.gradients.get(A)  # type: ignore[call-overload]
                    self._add(f"{name}{GRADIENTS}", torch.zeros_like(A) if found is None else found)
            self.state.steps += 1
            for place, (j, (name, rows)) in enumerate(zip(chosen, self._compared(), strict=True)):
                mean = self._mean(name)
                self.state.drawn[j, place] += 1
                self.state.distances[j, place] += float((mean - rows[j].to(mean)).abs().sum())  # type: ignore[index]

    def end(self, ctx: Context) -> None:
        """Keep the stage's means as a row."""
        import torch

        super().end(ctx)
        for key, total in self.state.now.items():
            name = key.removesuffix(GRADIENTS)
            kept = self.state.weights if name == key else self.state.gradients
            row = (total / self.state.steps).cpu()[None]
            kept[name] = torch.cat([kept[name].cpu(), row]) if name in kept else row
        self.state.now, self.state.drawn, self.state.distances = {}, None, None

    def _add(self, name: str, tensor: Tensor) -> None:
        known = self.state.now.get(name)
        row = tensor.detach().flatten().float()
        self.state.now[name] = row.clone() if known is None else known.to(row) + row

    def _compared(self) -> list[tuple[str, Tensor]]:
        """By matrix the rows of earlier tasks, of what is compared."""
        gradients = self.settings.compares == "gradients"
        return list((self.state.gradients if gradients else self.state.weights).items())

    def _mean(self, name: str) -> Tensor:
        gradients = self.settings.compares == "gradients"
        return self.state.now[f"{name}{GRADIENTS}" if gradients else name] / self.state.steps

    def _draw(self, ctx: Context) -> list[int]:
        """An earlier task for each matrix; the same all through a step."""
        import torch

        assert ctx.step is not None
        assert self.state.drawn is not None
        assert self.state.distances is not None
        random = torch.Generator().manual_seed(ctx.stage.seed * 1_000_003 + ctx.step.number)
        scores = bounds(self.state.distances, self.state.drawn, ctx.step.number, ctx.step.total)
        first = int(torch.multinomial(scores.sum(1).softmax(0), 1, generator=random))
        # The search looks at the root and at its branches, which two matrices decide.
        rows = [rows.float().cpu() for _, rows in self._compared()[:2]]
        root = grown(rows, list(range(len(scores))))
        for branch in root.branches:
            if first in branch.tasks:
                scores[branch.tasks] *= min(branch.similarity, LARGEST_FACTOR)
        scores = scores / (scores.max() - scores.min() + NEVER)
        return torch.multinomial(scores.softmax(0).T, 1, generator=random)[:, 0].tolist()


def bounds(distances: Tensor, drawn: Tensor, step: int, steps: int) -> Tensor:
    """s (tasks, matrices), shifted so that the least is 0: minus lower bounds of the distances."""
    means = distances / drawn.clamp(min=1)
    bonus = math.sqrt(math.log(2 * steps * (step + 1) * (step + 2))) / (2 * drawn + NEVER).sqrt()
    scores = bonus - means
    return scores - scores.min()


def grown(rows: list[Tensor], tasks: list[int], depth: int = 0) -> Node:
    """The tree of tasks, of rows by matrix (tasks, n), split by one matrix after another."""
    import torch

    if depth == len(rows) or len(tasks) < 2:
        return Node(tasks)
    own = rows[depth]
    steps = torch.cat([own[:1], own[1:] - own[:-1]])[tasks]
    similar = steps @ steps.mean(0)
    median = float(similar.median())
    near = [task for task, value in zip(tasks, similar.tolist(), strict=True) if value >= median]
    far = [task for task in tasks if task not in near]
    if not far:
        near, far = tasks[: len(tasks) // 2], tasks[len(tasks) // 2 :]
    return Node(tasks, median, tuple(grown(rows, half, depth + 1) for half in (near, far)))


def _factors(ctx: Context) -> dict[str, Tensor]:
    """A of each matrix, as it is trained."""
    from nlora.adapters.lora import Lora

    return {name: factors.A for name, factors in ctx.adapter_as(Lora).factors().items()}
