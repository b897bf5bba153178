"""MIGU: gradients go only to the units that a task makes busy.

"Unlocking Continual Learning Abilities in Language Models" (arXiv:2406.17245): magnitude-based
gradient updating. From the second task on, of every trained matrix W (out, in) of a linear layer
y = W·x, with n_j = Σ_tokens |y_j| over the step,

    row j of W's gradient stays where n_j ≥ the T-quantile of n over the layer's units, else it is 0

and T = 0.7, as in the authors' scripts for whole models. Of LoRA both A and B are such matrices;
the units of B are those of the layer that it adapts, whose whole output W·x + ΔW·x is theirs, as in
the authors' code for LoRA. Neither old data nor the task's identity is needed, and nothing is
remembered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from nlora.methods.parts.lora import LoraMethod, LoraSettings

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

    from nlora.methods.context import Context


class MiguSettings(LoraSettings):
    """What is trained, and how much of it stands still."""

    adapter: Literal["lora", "full"] = Field("lora", description="what is trained")
    still: float = Field(
        0.7,
        ge=0,
        lt=1,
        description="T, the share of a layer's units that a step leaves as they are",
    )


class Migu(LoraMethod):
    """Train task after task, each step only the rows whose outputs are large."""

    name = "migu"
    summary = "one LoRA adapter, continued; a step changes only units whose outputs are large"
    paper = "arXiv:2406.17245"
    continues = True
    needs_magnitudes = True
    Settings = MiguSettings
    settings: MiguSettings

    def gradients(self, ctx: Context) -> dict[Parameter, Tensor] | None:
        """Those of busy units, from the second task on."""
        if ctx.stage.index == 1 or ctx.step is None:
            return None
        return {
            weight: weight.grad * busy(sizes, self.settings.still)[:, None]
            for weight, sizes in ctx.step.magnitudes.items()
            if weight.grad is not None
        }


def busy(sizes: Tensor, still: float) -> Tensor:
    """Which units (out,) are at least as large as the quantile of their sizes."""
    return sizes >= sizes.quantile(still)
