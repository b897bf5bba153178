"""CLoRA: an update that ignores some directions chosen beforehand.

"Controlled Low-Rank Adaptation with Subspace Regularization for Continued Training on Large
Language Models" (arXiv:2410.16801). The more of an input falls into the null space of ΔW, the less
the output changes; so a part of the null space is given. With P and Q of k orthonormal rows each,
drawn once for a matrix, (k, in) and (k, out), and PEFT's A (r, in) and B (out, r)

    L = L_task + λ/2 Σ_matrices (‖A·Pᵀ‖²_F + ‖Q·B‖²_F)

The same P and Q hold for all tasks: a matrix' name is the seed that they are drawn by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

from pydantic import Field

from nlora.adapters.settings import Count
from nlora.methods.base import Penalty, PerStage, per_stage
from nlora.methods.parts.lora import LoraMethod, LoraSettings
from nlora.methods.parts.terms import Weighted

if TYPE_CHECKING:
    from torch import Tensor

    from nlora.adapters.lora import Lora
    from nlora.methods.context import Context
    from nlora.methods.parts.terms import Pairs


class CLoraSettings(LoraSettings):
    """The weight, and how many directions are to be ignored."""

    subspace_weight: PerStage = Field(
        1.0, description="λ, the weight of the given null space, one value or one per stage"
    )
    subspace: Count = Field(
        128, description="k, how many directions of inputs and of outputs are to be ignored"
    )


class NullDirections(Weighted):
    """λ/2 Σ (‖A·Pᵀ‖²_F + ‖Q·B‖²_F)."""

    name = "subspace"

    def __init__(self, adapter: Lora, count: int, weight: float) -> None:
        super().__init__(weight)
        self.parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for name, (A, B, _) in adapter.factors().items():
            P = given(f"{name}.A", count, A.shape[1]).to(A)
            Q = given(f"{name}.B", count, B.shape[0]).to(B)
            self.parts.append((A, P, B, Q))

    def value_and_pairs(self) -> tuple[Tensor | float, Pairs]:
        """What the factors have in the given directions, and its gradient."""
        value: Tensor | float = 0.0
        pairs = []
        for A, P, B, Q in self.parts:
            in_A, in_B = A @ P.T, Q @ B  # (r, k), (k, r)
            value = value + (in_A.square().sum() + in_B.square().sum()) / 2
            pairs += [(A, in_A @ P), (B, Q.T @ in_B)]
        return value, pairs  # type: ignore[return-value]


def given(name: str, count: int, size: int) -> Tensor:
    """Orthonormal directions of that name, (count, size); at most half of all there are."""
    import torch

    chance = torch.Generator().manual_seed(crc32(name.encode()))
    drawn = torch.randn(size, min(count, max(size // 2, 1)), generator=chance, dtype=torch.float64)
    return torch.linalg.qr(drawn).Q.T


class CLora(LoraMethod):
    """A fresh adapter per task, kept out of given directions."""

    name = "c-lora"
    summary = "a new LoRA adapter per task, kept out of directions that are given beforehand"
    paper = "arXiv:2410.16801"
    Settings = CLoraSettings
    settings: CLoraSettings

    def own_weight(self) -> str:
        """The penalty's weight where there is one, else the null space's."""
        return super().own_weight() or "subspace_weight"

    def penalties(self, ctx: Context) -> list[Penalty]:
        """The given null space, beside the penalty of every LoRA method."""
        from nlora.adapters.lora import Lora

        terms = super().penalties(ctx)
        weight = per_stage(self.settings.subspace_weight, ctx.stage.index, "subspace_weight")
        if weight:
            terms.append(NullDirections(ctx.adapter_as(Lora), self.settings.subspace, weight))
        return terms
