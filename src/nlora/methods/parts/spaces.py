"""The directions that the inputs of earlier tasks have, and what lies outside of them.

Of each adapted matrix an orthonormal basis is kept, (k, in), one direction a row; no input is. Of a
task with C = mean of x xᵀ over the inputs x of the matrix, and P the projection on the basis, it is
extended by the first left singular directions of (I − P)·C, the fewest with which

    1 − ‖rest‖²_F / ‖C‖²_F ≥ share

as in gradient projection memory (GPM, arXiv:2103.09762) and the code of InfLoRA, which takes C
itself in place of the inputs: large directions count for more than by their variance.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import Field

from nlora.adapters.settings import Count
from nlora.data.task import sample
from nlora.methods.parts.lora import LoraMethod, LoraSettings, LoraState

if TYPE_CHECKING:
    from torch import Tensor

    from nlora.methods.context import Context

NEGLIGIBLE = 1e-6
"""Relative to ‖C‖, what rounding leaves of a direction that no input has."""


class SpacesSettings(LoraSettings):
    """How much of what tasks read is kept."""

    share: float = Field(
        0.995, gt=0, lt=1, description="of a first task's inputs that their kept directions explain"
    )
    space_examples: Count | None = Field(
        1000, description="training examples whose inputs are measured, at most (null: all)"
    )


@dataclass
class SpacesState(LoraState):
    """What earlier tasks read."""

    bases: dict[str, Tensor] = field(default_factory=dict)
    """By matrix an orthonormal basis of their inputs, (k, in)."""


class OutsideSpaces(LoraMethod):
    """A fresh adapter per task, and the directions that all tasks so far have read."""

    Settings = SpacesSettings
    State = SpacesState
    settings: SpacesSettings
    state: SpacesState

    def covariances(self, ctx: Context) -> dict[str, Tensor]:
        """By matrix the mean of x xᵀ over the inputs of the stage's training examples.

        The model as it is; (in, in) in fp32.
        """
        own = [example for data in ctx.stage.tasks for example in data.train]
        count = self.settings.space_examples or len(own)
        return ctx.covariances(sample(own, count, ctx.stage.seed))

    def share_now(self, ctx: Context) -> float:
        """What is kept of the stage's task: a share that grows from `share` towards 1."""
        done = min((ctx.stage.index - 1) / len(ctx.stream), 1.0)
        return self.settings.share + (1 - self.settings.share) * done

    def end(self, ctx: Context) -> None:
        """Let the bases take up the task."""
        super().end(ctx)
        share = self.share_now(ctx)
        for name, covariance in self.covariances(ctx).items():
            self.state.bases[name] = extended(self.state.bases.get(name), covariance, share)


def outside(matrix: Tensor, basis: Tensor | None) -> Tensor:
    """The rows of a matrix (n, in) without what they have in the span of a basis (k, in); 0 and no
    rounding where that is all there is."""
    if basis is None:
        return matrix
    if len(basis) >= basis.shape[1]:
        return matrix.new_zeros(matrix.shape)
    basis = basis.to(matrix)
    return matrix - (matrix @ basis.T) @ basis


def directions(covariance: Tensor, basis: Tensor | None) -> tuple[Tensor, Tensor]:
    """Left singular directions of (I − P)·C, one a row, and singular values, largest first.

    Those that are 0 but for rounding are left out; (n, in) and (n,) in float64.
    """
    import torch

    wide = covariance.double().cpu()
    U, S, _ = torch.linalg.svd(outside(wide.T, basis).T, full_matrices=False)
    there = wide.norm() * NEGLIGIBLE < S
    return U.T[there], S[there]


def extended(basis: Tensor | None, covariance: Tensor, share: float) -> Tensor:
    """The basis (k, in) with as many directions more as the share asks for, in fp32."""
    import torch

    found, values = directions(covariance, basis)
    total = covariance.double().cpu().square().sum()
    rest = values.square().sum() - torch.cumsum(values.square(), 0)
    known = bool(1 - values.square().sum() / total >= share)
    count = 0 if known else int((1 - rest / total < share).sum()) + 1
    more = found[:count]
    return (more if basis is None else torch.cat([basis.double().cpu(), more])).float()
