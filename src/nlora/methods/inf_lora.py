"""InfLoRA: a new adapter reads what its task's inputs have outside those of earlier tasks.

"InfLoRA: Interference-Free Low-Rank Adaptation for Continual Learning" (arXiv:2404.00228). A new
LoRA adapter per task, of which B alone is trained. Before a task, with C the mean of x xᵀ over its
inputs at a matrix and P the projection on what earlier tasks read there (`parts.spaces`),

    A = Uᵀ/√3,  U the first r left singular directions of (I − P)·C

so that ΔW·x = 0 for x in the span of the earlier tasks' inputs, as far as it is kept. After it the
span takes up the task's inputs, read by the model as it is then, with a share that grows from
`share` towards 1 over the tasks: ε_t = share + (1 − share)·(t − 1)/T. It costs two passes over the
task's examples, without gradients. The paper is on images, share 0.98 or 0.95 by data
set; 0.995 is that of the authors' scripts for language models (of GainLoRA).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from nlora.methods.parts.spaces import OutsideSpaces, directions

if TYPE_CHECKING:
    from torch import Tensor

    from nlora.adapters.base import Start
    from nlora.lowrank.factors import Factors
    from nlora.methods.context import Context


class InfLora(OutsideSpaces):
    """A fresh adapter per task, whose A is designed and frozen."""

    name = "inf-lora"
    summary = "a new LoRA adapter per task whose A reads the task's inputs outside earlier ones'"
    paper = "arXiv:2404.00228"
    frozen = ("A",)

    @property
    def extra_passes(self) -> float:
        """Over the inputs before and after training."""
        return 2.0

    def start(self, ctx: Context) -> Start:
        """A in the directions of the new inputs outside the old span; B = 0."""
        new = self.covariances(ctx)

        def designed(name: str, fresh: Factors) -> tuple[Tensor, Tensor]:
            if name not in new:  # no input runs through it
                return fresh.A, fresh.B
            found, _ = directions(new[name], self.state.bases.get(name))
            A, rows = fresh.A.new_zeros(fresh.A.shape), min(len(found), len(fresh.A))
            A[:rows] = found[:rows].to(A) / math.sqrt(3)
            return A, fresh.B.new_zeros(fresh.B.shape)

        return designed
