"""Sparse updates whose collisions are chosen: is it collision that makes a model forget?

"Is Parameter Collision Hindering Continual Learning in LLMs?" (arXiv:2410.10179) makes updates
sparse so that they hardly meet, which makes them smaller, too. Here every task trains a share s of
the entries of each adapted matrix, at random positions, with the earlier updates frozen and
active; only where tasks meet differs:

    masks           share of entries that two tasks both change
    identical       s
    independent     s² on average
    disjoint        0, as long as tasks·s ≤ 1

Parametrisation, budget and training are the same, and so is the first stage. By default s gives a
matrix as many entries as LoRA of the run's rank has parameters there, s = r(in + out)/(in·out). The
rank of such an update is not bounded. A stage's notes hold the rates as measured, and ‖ΔW‖_F.
"Sparse High Rank Adapters" (SHiRA, arXiv:2406.13175) trains such entries, for one task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from nlora.methods.base import Method, Settings

if TYPE_CHECKING:
    from nlora.methods.context import Context


class SparseMasksSettings(Settings):
    """Where tasks meet, and how much each may change."""

    masks: Literal["identical", "independent", "disjoint"] = Field(
        "independent",
        description="the entries that tasks train: identical, drawn independently, or disjoint",
    )
    density: float | None = Field(
        None,
        gt=0,
        le=1,
        description="share of each matrix' entries that a task trains; null: as many as LoRA of "
        "the run's rank has parameters there",
    )


class SparseMasks(Method):
    """A fresh sparse update per task on top of the earlier ones, at chosen positions."""

    name = "sparse-masks"
    summary = "a few entries of each matrix per task, the same, independent or disjoint ones"
    paper = "arXiv:2410.10179, Theorem 2, with chosen masks; arXiv:2406.13175 (SHiRA)"
    Settings = SparseMasksSettings
    settings: SparseMasksSettings

    @property
    def adapter(self) -> str:
        """Sparse entries."""
        return "sparse"

    def adapter_options(self) -> dict[str, Any]:
        """How masks are drawn."""
        return {"masks": self.settings.masks, "density": self.settings.density}

    def first_stage(self) -> dict[str, Any]:
        """The first mask is drawn alike whatever the later ones."""
        return {"density": self.settings.density}

    def begin(self, ctx: Context) -> None:
        """A fresh update. Raises NloraError where the run's tasks will not all have room."""
        from nlora.adapters.sparse import Sparse

        ctx.adapter_as(Sparse).check_room(len(self.stages(ctx.stream)))
        super().begin(ctx)
