"""Null-space projection: an adapter that reads nothing of what earlier tasks read.

Gradient projection memory (GPM, arXiv:2103.09762) and Adam-NSCL (arXiv:2103.07113) keep a step of a
matrix out of the span of earlier tasks' inputs, so that it does nothing to them. Of a LoRA update
ΔW = s·B·A that is a matter of A alone: with P the projection on that span (`parts.spaces`)

    A ← A − A·P   when it is drawn, of its gradient, and after every step

The last is what Adam-NSCL does to Adam's step: Adam turns a projected gradient back into the span.
As InfLoRA, with an A that is trained instead of designed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nlora.methods.parts.spaces import OutsideSpaces, outside

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

    from nlora.adapters.base import Start
    from nlora.lowrank.factors import Factors
    from nlora.methods.context import Context


class NullSpace(OutsideSpaces):
    """A fresh adapter per task, whose A is kept outside of what earlier tasks read."""

    name = "null-space"
    summary = "a new LoRA adapter per task, its A projected away from all that earlier tasks read"
    paper = "arXiv:2103.07113, of LoRA factors"

    @property
    def extra_passes(self) -> float:
        """Over the inputs after training."""
        return 1.0

    def start(self, ctx: Context) -> Start:
        """A as it is drawn, without what it has in the old span; B = 0."""

        def projected(name: str, fresh: Factors) -> tuple[Tensor, Tensor]:
            return outside(fresh.A, self.state.bases.get(name)), fresh.B

        return projected

    def gradients(self, ctx: Context) -> dict[Parameter, Tensor]:
        """That of A without what it has in the old span."""
        return {
            A: outside(A.grad, self.state.bases.get(name))  # type: ignore[misc]
            for name, A in self._trained(ctx)
            if A.grad is not None
        }

    def after_step(self, ctx: Context) -> None:
        """A without what the step has brought back."""
        for name, A in self._trained(ctx):
            A.data.copy_(outside(A.data, self.state.bases.get(name)))

    def _trained(self, ctx: Context) -> list[tuple[str, Parameter]]:
        """By matrix the A that is trained, where there is anything to keep out of."""
        from nlora.adapters.lora import Lora

        named = ctx.adapter_as(Lora).factors().items()
        return [(n, f.A) for n, f in named if n in self.state.bases and f.A.requires_grad]  # type: ignore[misc]
