"""What every method over LoRA adapters offers: penalty, consolidation and routing, freely combined.

penalty         what is added to the loss for the new update (`methods.sparsity`)
consolidation   what model the updates make together (`carriers.lora`)
routing         which state of the model answers an example: none, one model for all; `input`, the
                model as it stood after the task that the example is taken for (`methods.routing`);
                `told`, after the task that the example is said to belong to

A model that stood after task k has the updates 1 … k, so what a task gained from earlier ones is
kept, and routing forgets nothing but by misrouting; with consolidation `none` it has update k
alone. Storage then grows with the tasks. A method that may train all parameters instead is one of
these too; `largest`, `input` and the penalties need adapters.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from nlora.carriers.lora import Consolidation
from nlora.data.task import Example
from nlora.errors import NloraError
from nlora.methods.base import Learner, Method, Penalty, Stage, per_stage
from nlora.methods.routing import Router
from nlora.methods.sparsity import ProximalSparsity, SparseSettings, Sparsity
from nlora.methods.weight import ready


class LoraSettings(SparseSettings):
    """The settings that every LoRA method has."""

    consolidation: Consolidation = Field(
        "sum",
        description="how updates make one model: their sum, per entry the largest, or none, where "
        "each stands alone",
    )
    routing: Literal["none", "input", "told"] = Field(
        "none",
        description="which state of the model answers: the newest (none), the one after the task "
        "that the input is taken for (input) or said to belong to (told)",
    )


class LoraMethod(Method):
    """A method over LoRA adapters."""

    Settings = LoraSettings
    settings: LoraSettings

    def __init__(self, settings: LoraSettings) -> None:
        super().__init__(settings)
        self.router = Router() if settings.routing == "input" else None
        if self.continues and settings.consolidation != "sum":
            raise NloraError(
                f"{self.name}: consolidation '{settings.consolidation}' needs an update per task, "
                "and this method continues one"
            )
        if self.carrier != "lora":
            self._refuse("penalty", settings.penalty != "none")
            self._refuse("consolidation", settings.consolidation == "largest")
            self._refuse("routing", settings.routing == "input")
        given = settings.model_fields_set & {"penalty", "l1"}
        if given == {"penalty"} and settings.penalty != "none" and settings.l1 == 0:
            raise NloraError(f"{self.name}: penalty '{settings.penalty}' needs a weight; set l1")
        if given == {"l1"} and settings.penalty == "none" and settings.l1 != 0:
            raise NloraError(f"{self.name}: l1 weighs a penalty, and there is none; set penalty")

    def _refuse(self, setting: str, where: bool) -> None:
        if where:
            value = getattr(self.settings, setting)
            raise NloraError(
                f"{self.name}: {setting} '{value}' needs LoRA adapters; set carrier=lora"
            )

    @property
    def needs_task_id(self) -> bool:
        """Where routing is told the task."""
        return self.settings.routing == "told"

    @property
    def storage_grows(self) -> bool:
        """Where the updates cannot be folded into one model."""
        return self.settings.routing != "none" or self.settings.consolidation == "none"

    def own_weight(self) -> str | None:
        """The penalty's weight, where there is a penalty."""
        return "l1" if self.settings.penalty != "none" else None

    def lora_first_stage(self) -> dict[str, Any]:
        """What decides the first stage of a method that adds nothing to it but these settings."""
        s = self.settings
        weight = per_stage(s.l1, 1, "l1")
        penalised = s.penalty != "none" and weight
        return {
            "penalty": [s.penalty, weight, s.l1_unit] if penalised else None,
            "consolidation": s.consolidation,
            "routing": s.routing,
        }

    def carrier_options(self) -> dict[str, Any]:
        """How the carrier consolidates."""
        if self.carrier == "full":
            return {"isolated": self.settings.consolidation == "none"}
        return {"consolidation": self.settings.consolidation}

    def penalties(self, learner: Learner, stage: Stage) -> list[Penalty]:
        """The penalty that is asked for; with weight 0 there is none."""
        s = self.settings
        weight = per_stage(s.l1, stage.index, "l1")
        if s.penalty == "none" or weight == 0:
            return []
        kind = ProximalSparsity if s.penalty == "column-row" else Sparsity
        term = kind(learner.carrier.factors().values(), s.penalty, weight, s.l1_unit, stage.steps)
        return [ready(term, stage)]

    def end(self, learner: Learner, stage: Stage) -> None:
        """Let the router take up the stage."""
        if self.router is not None:
            self.router.learn(learner, stage)

    def route(self, learner: Learner, examples: Sequence[Example]) -> list[int] | None:
        """The stage that each input is taken for, where routing is by the input."""
        if self.router is None or not self.router.means:
            return None
        return self.router.route(learner, examples)

    def save(self, folder: Path) -> None:
        """What the router keeps."""
        if self.router is not None:
            self.router.save(folder)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""
        if self.router is not None:
            self.router.load(folder)
