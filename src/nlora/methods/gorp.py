"""GORP: gradients outside the directions that earlier tasks' gradients had, in low rank and whole.

"Continual Gradient Low-Rank Projection Fine-Tuning for LLMs" (arXiv:2507.02503). Over a LoRA
adapter and the adapted matrices themselves (`adapters.lora_and_whole`), both continued from task to
task. With G = ∂L/∂W of a whole matrix, its first k singular directions U, V taken anew every T
steps, and S the basis of what earlier tasks' gradients had, of each its own,

    A, B    G_A ← G_A − G_A·S·Sᵀ,   G_B ← G_B − S·Sᵀ·G_B       S among inputs and among outputs
    W       G′ = Uᵀ·G·V (k, k),  G′ ← G′ − S·Sᵀ·G′, Adam on it, and its step taken back: U·(…)·Vᵀ

After a task each S takes up the first singular directions of its parameter's first moment M as Adam
has it (β₁ = 0.9), the fewest with ‖(M)_m‖²_F ≥ ε·‖M‖²_F. No old data is needed, and what is kept
does not grow with the tasks but with the directions. k = 8 and T = 10 are the paper's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import Field

from nlora.adapters.settings import Count
from nlora.methods.base import Method, Settings, State
from nlora.methods.parts.spaces import extended, outside
from nlora.methods.settings import LARGEST

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

    from nlora.adapters.lora_and_whole import LoraAndWhole
    from nlora.methods.context import Batch, Context

MOMENTUM = 0.9
"""β₁ of Adam."""


class GorpSettings(Settings):
    """The subspace of whole gradients, and how much of a task's is kept."""

    core_rank: Count = Field(8, description="k, the rank that whole gradients are brought to")
    turn_every: Count = Field(10, description="T, after how many steps their directions are anew")
    share: float = Field(
        0.95, gt=0, lt=1, description="ε, of a task's first moment that its directions explain"
    )
    whole_scale: float = Field(
        1.0,
        ge=0,
        le=LARGEST,
        description="α, what steps of whole matrices are multiplied by; 0 is LoRA alone",
    )


@dataclass
class GorpState(State):
    """By parameter (`MATRIX.A`, `.B`, `.core`) what is remembered of its gradients."""

    bases: dict[str, Tensor] = field(default_factory=dict)
    """Orthonormal directions of earlier tasks, one a row."""
    moments: dict[str, Tensor] = field(default_factory=dict)
    """The first moment in the stage in hand, directions along rows."""


class Gorp(Method):
    """One adapter and the matrices themselves, stepped outside of earlier tasks' gradients."""

    name = "gorp"
    summary = "LoRA and whole matrices by low-rank steps, outside earlier tasks' gradients"
    paper = "arXiv:2507.02503"
    continues = True
    Settings = GorpSettings
    State = GorpState
    settings: GorpSettings
    state: GorpState

    @property
    def adapter(self) -> str:
        """Factors and whole changes."""
        return "lora-and-whole"

    def adapter_options(self) -> dict[str, Any]:
        """k."""
        return {"core_rank": self.settings.core_rank}

    def begin(self, ctx: Context) -> None:
        """Go on, with moments of 0."""
        super().begin(ctx)
        self.state.moments = {}

    def loss(self, ctx: Context, batch: Batch) -> dict[str, Tensor]:
        """The answers' loss, with gradients of whole matrices where the directions are due."""
        assert ctx.step is not None
        due = self.settings.whole_scale > 0 and ctx.step.number % self.settings.turn_every == 0
        _adapter(ctx).watch(due)
        return super().loss(ctx, batch)

    def gradients(self, ctx: Context) -> Mapping[Parameter, Tensor]:
        """Those of A, B and the cores outside of S, of which the moments are taken."""
        self._turn(ctx)
        found = {}
        for name, parameter, along in _parameters(_adapter(ctx)):
            if parameter.grad is None:
                continue
            rows = outside(along(parameter.grad), self.state.bases.get(name))
            known = self.state.moments.get(name)
            moment = rows * (1 - MOMENTUM) if known is None else known.to(rows)
            self.state.moments[name] = moment if known is None else moment.lerp(rows, 1 - MOMENTUM)
            found[parameter] = along(rows)
        return found

    def after_step(self, ctx: Context) -> None:
        """Take the cores' step back to the whole matrices."""
        _adapter(ctx).absorb(self.settings.whole_scale)

    def end(self, ctx: Context) -> None:
        """Let S take up the task's directions."""
        super().end(ctx)
        for name, moment in self.state.moments.items():
            if moment.any():
                known = self.state.bases.get(name)
                self.state.bases[name] = extended(known, moment.T, self.settings.share)
        self.state.moments = {}

    def _turn(self, ctx: Context) -> None:
        """Where whole gradients were watched: the directions, and the cores' gradients in them."""
        import torch

        from nlora import processes

        adapter = _adapter(ctx)
        for name, own in adapter.gradients().items():
            G = processes.summed(own) / processes.count()  # each counted all processes' tokens
            core = adapter.cores()[name]
            U, _, Vh = torch.linalg.svd(G.float(), full_matrices=False)
            left, right = U[:, : len(core)], Vh[: len(core)]
            adapter.turn(name, left, right)
            core.grad = (left.T @ G.float() @ right.T).to(core)


def _adapter(ctx: Context) -> LoraAndWhole:
    from nlora.adapters.lora_and_whole import LoraAndWhole

    return ctx.adapter_as(LoraAndWhole)


def _parameters(adapter: LoraAndWhole) -> Iterator[tuple[str, Parameter, Any]]:
    """What is trained, and how its gradient is laid so that directions are along rows, and back."""
    for name, (A, B, _) in adapter.factors().items():
        yield f"{name}.A", A, lambda rows: rows  # type: ignore[misc]
        yield f"{name}.B", B, lambda rows: rows.T  # type: ignore[misc]
    for name, core in adapter.cores().items():
        yield f"{name}.core", core, lambda rows: rows.T
