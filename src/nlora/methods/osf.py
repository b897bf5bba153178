"""OSF: the weights are trained outside their first singular directions, which hold what is known.

"Sculpting Subspaces: Constrained Full Fine-Tuning in LLMs for Continual Learning"
(arXiv:2504.07097), as PEFT implements it (`nlora.adapters.osf`). Before every task the SVD of each
adapted matrix is taken anew, and the directions of its largest singular values are frozen:

    growing    (k − 1)/n of them before task k of n: nearly everything is trained for the first task
               (PEFT freezes one direction at least), 1/n for the last. This is PEFT's advice for a
               known sequence of tasks ("Budget Allocation for Task Sequences"); the authors'
               script for fifteen tasks adds 0.07 of the longer side per task. In a model that
               learns one more task whenever there is one, n is the number of tasks so far
    a number   directions (8) or a share of them (0.5 is PEFT's default); one per stage in a list:
               PEFT's example takes [0.3, 0.5, 0.7]

PEFT has no rank by importance of a layer, which the paper describes. There all parameters are
trained, those of matrices that are not taken apart freely; here and in PEFT nothing but the adapted
matrices is.

PEFT projects gradients, with which the step of Adam is not in the subspace any more: after a few
steps a quarter of the change lies in frozen directions (`notes.osf_leak` of the stage tells).
`projection=step` projects what Adam made of it, too, as the authors' own trainer does now.

Which matrices: the run setting `target_modules`; PEFT's choice is all linear layers but the output
layer. Learning rate: PEFT advises 1e-5 to 1e-4, of which the larger ones forget everything on a
small model (docs/results).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field

from nlora.methods.base import (
    ONE_PER_STAGE,
    Method,
    Settings,
    per_stage,
)

if TYPE_CHECKING:
    from nlora.methods.context import Context


def _rank(value: Any) -> Any:
    for number in value if isinstance(value, list) else [value]:
        if isinstance(number, float) and not 0 <= number < 1:
            raise ValueError("a share of directions must be at least 0 and below 1")
        if isinstance(number, int) and number < 0:
            raise ValueError("must be a number of directions")
    return value


Rank = Annotated[
    Literal["growing"] | int | float | list[int | float], AfterValidator(_rank), ONE_PER_STAGE
]


class OsfSettings(Settings):
    """What is preserved."""

    effective_rank: Rank = Field(
        "growing",
        description="singular directions of each matrix that are frozen: a number, a share below "
        "1, one of either per stage, or growing, (k − 1)/n before task k of n",
    )
    projection: Literal["gradient", "step"] = Field(
        "gradient",
        description="what is kept out of the frozen directions: the gradient (PEFT), or the "
        "optimiser's step as well",
    )


class Osf(Method):
    """Train task after task in what the weights' first singular directions leave."""

    name = "osf"
    summary = "weights trained outside their first singular directions, of which more are frozen"
    paper = "arXiv:2504.07097"
    continues = True
    Settings = OsfSettings
    settings: OsfSettings

    @property
    def adapter(self) -> str:
        """PEFT's OSF."""
        return "osf"

    def run_defaults(self) -> dict[str, Any]:
        """The lower end of what PEFT advises, chosen on dev."""
        return {"learning_rate": 1e-5}

    def adapter_options(self) -> dict[str, Any]:
        """What the first task preserves."""
        return {"effective_rank": self._preserved(1, 1)}

    def begin(self, ctx: Context) -> None:
        """Decompose the weights as they stand, and preserve what the stage is to preserve."""
        from nlora.adapters.osf import Osf as OsfAdapter

        tasks = len(self.stages(ctx.stream))
        ctx.adapter_as(OsfAdapter).effective_rank = self._preserved(ctx.stage.index, tasks)
        super().begin(ctx)

    def after_step(self, ctx: Context) -> None:
        """Take back what the step has outside of the subspace, where that is asked for."""
        if self.settings.projection == "step":
            from nlora.adapters.osf import Osf as OsfAdapter

            ctx.adapter_as(OsfAdapter).project()

    def _preserved(self, stage: int, tasks: int) -> float:
        rank = self.settings.effective_rank
        if rank == "growing":
            return (stage - 1) / tasks
        return per_stage(rank, stage, "effective_rank")
