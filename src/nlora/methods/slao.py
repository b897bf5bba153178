"""SLAO: one adapter, started anew from the last one and merged into it after every task.

"Merge before Forget: A Single LoRA Continual Learning via Continual Merging" (arXiv:2512.23017). In
PEFT's layout, with A (r, in) and B (out, r), for task i

    start   A ← Qᵀ with Q·R = QR((A_{i−1})ᵀ), diag(R) ≥ 0, so that A·Aᵀ = I;  B ← B_{i−1}
    merge   A* = A_i,  B* ← B* + (B_i − B*)/√i

A_i and B_i are the factors as they were trained on task i, A* and B* those that answer. The first
task starts as LoRA does. Storage does not grow: beside the merged adapter B_i is kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nlora.methods.parts.lora import LoraMethod, LoraState

if TYPE_CHECKING:
    from torch import Tensor

    from nlora.methods.context import Context


@dataclass
class SlaoState(LoraState):
    """What the next task starts from, beside the merged adapter, whose A is the trained one."""

    trained: dict[str, Tensor] = field(default_factory=dict)
    """By matrix B as it was trained on the last task, (out, r)."""
    tasks: int = 0
    """How many have been merged."""


class Slao(LoraMethod):
    """One adapter: an orthogonal start from the last one, and a merge that weighs less and less."""

    name = "slao"
    summary = "one LoRA adapter, started orthogonally from the last and merged with weight 1/√i"
    paper = "arXiv:2512.23017"
    State = SlaoState
    state: SlaoState
    continues = True
    needs_previous = True

    def begin(self, ctx: Context) -> None:
        """Start the factors from those of the last task."""
        import torch

        from nlora.adapters.lora import Lora

        super().begin(ctx)
        if not self.state.trained:
            return
        with torch.no_grad():
            for name, (A, B, _) in ctx.adapter_as(Lora).factors().items():
                rows = orthogonal(A)  # fewer than r where A has fewer columns
                A.zero_()
                A[: len(rows)] = rows.to(A.dtype)
                B.copy_(self.state.trained[name])

    def end(self, ctx: Context) -> None:
        """Merge B; A is the newest."""
        import torch

        from nlora.adapters.lora import Lora

        super().end(ctx)
        factors = ctx.adapter_as(Lora).factors()
        with ctx.previous():
            merged = {name: f.B.detach().clone() for name, f in factors.items()}
        self.state.trained = {name: f.B.detach().cpu().clone() for name, f in factors.items()}
        self.state.tasks += 1
        weight = 1 / math.sqrt(self.state.tasks)
        with torch.no_grad():
            for name, f in factors.items():
                f.B.copy_(torch.lerp(merged[name], f.B, weight))


def orthogonal(A: Tensor) -> Tensor:
    """Orthonormal rows with the span of A's (r, in), in fp64, each turned as A's own are, so that B
    still goes with them: QR's signs are arbitrary."""
    import torch

    Q, R = torch.linalg.qr(A.double().T)
    return (Q * torch.where(R.diagonal() < 0, -1.0, 1.0)).T
