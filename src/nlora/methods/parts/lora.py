"""What every method over LoRA adapters offers: penalty, consolidation and routing, freely combined.

penalty         what is added to the loss for the new update (`methods.parts.sparsity`)
consolidation   what model the updates make together (`nlora.merging`)
routing         which state of the model answers an example: none, one model for all; `input`, the
                model as it was after the task that the example is taken for (`parts.routing`);
                `task`, after the task that the example is said to belong to

A model that stood after task k has the updates 1 … k, so what a task gained from earlier ones is
kept, and routing forgets nothing but by misrouting; with consolidation `none` it has update k
alone. Storage then grows with the tasks. A method that may train all parameters instead is one of
these too; `largest`, `input` and the penalties need adapters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field

from nlora.errors import NloraError
from nlora.merging.registry import checked, consolidation
from nlora.methods.base import Method, Penalty, State, per_stage
from nlora.methods.parts.sparsity import ProximalSparsity, SparseSettings, Sparsity
from nlora.methods.parts.terms import ready

if TYPE_CHECKING:
    from torch import Tensor

    from nlora.data.task import Example
    from nlora.methods.context import Context

ConsolidationName = Annotated[str, AfterValidator(checked)]
"""A setting that names a consolidation, built-in or a plug-in's."""


class LoraSettings(SparseSettings):
    """The settings that every LoRA method has."""

    consolidation: ConsolidationName = Field(
        "sum",
        description="how updates make one model: their sum, per entry the largest, or none, where "
        "each stands alone",
    )
    routing: Literal["none", "input", "task"] = Field(
        "none",
        description="which state of the model answers: the newest (none), the one after the task "
        "that the input is taken for (input) or said to belong to (task)",
    )


AnyAdapter = Literal["full", "lora", "peft"]
"""A setting that says what is trained: all parameters, LoRA, or any tuner of PEFT's."""


class TunedSettings(LoraSettings):
    """The settings of a method that works with any tuner of PEFT's, too."""

    adapter: Literal["lora", "peft"] = Field(
        "lora", description="what is trained: LoRA, or the tuner of PEFT's that peft_type names"
    )


@dataclass
class LoraState(State):
    """What the router keeps (`parts.routing`), where routing is by the input."""

    means: list[Tensor] = field(default_factory=list)
    """Of the features of a stage's texts, (d,)."""
    stages: list[int] = field(default_factory=list)
    """The stages that these are of: a stage that was not accepted has none."""
    scatter: Tensor | None = None
    """Of all features around the means of their stages, summed, (d, d)."""
    texts: int = 0
    """How many texts there were."""


class LoraMethod(Method):
    """A method over LoRA adapters."""

    Settings = LoraSettings
    State = LoraState
    settings: LoraSettings
    state: LoraState

    def __init__(self, settings: LoraSettings) -> None:
        super().__init__(settings)
        strategy = consolidation(settings.consolidation)
        if self.continues and not strategy.additive:
            raise NloraError(
                f"{self.name}: consolidation '{settings.consolidation}' needs an update per task, "
                "and this method continues one"
            )
        if self.adapter != "lora":
            self._refuse("penalty", settings.penalty != "none")
            self._refuse("consolidation", not (strategy.additive or strategy.alone))
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
                f"{self.name}: {setting} '{value}' needs LoRA adapters; set adapter=lora"
            )

    @property
    def _alone(self) -> bool:
        return consolidation(self.settings.consolidation).alone

    @property
    def adapter(self) -> str:
        """LoRA, or what the method's setting `adapter` says."""
        return getattr(self.settings, "adapter", "lora")

    @property
    def needs_task_id(self) -> bool:
        """Where routing is told the task."""
        return self.settings.routing == "task"

    @property
    def storage_grows(self) -> bool:
        """Where the updates cannot be folded into one model."""
        return self.settings.routing != "none" or self._alone

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

    def adapter_options(self) -> dict[str, Any]:
        """How the adapter consolidates."""
        if self.adapter == "full":
            return {"isolated": self._alone}
        return {"consolidation": self.settings.consolidation}

    def penalties(self, ctx: Context) -> list[Penalty]:
        """The penalty that is asked for; with weight 0 there is none."""
        s = self.settings
        weight = per_stage(s.l1, ctx.stage.index, "l1")
        if s.penalty == "none" or weight == 0:
            return []
        from nlora.adapters.lora import Lora

        kind = ProximalSparsity if s.penalty == "column-row" else Sparsity
        term = kind(
            ctx.adapter_as(Lora).whole().values(), s.penalty, weight, s.l1_unit, ctx.stage.steps
        )
        return [ready(term, ctx.stage)]

    def end(self, ctx: Context) -> None:
        """Let the router take up the stage."""
        if self.settings.routing == "input":
            from nlora.methods.parts.routing import Router

            Router(self.state).learn(ctx)

    def route(self, ctx: Context, examples: Sequence[Example]) -> list[int] | None:
        """The stage that each input is taken for, where routing is by the input."""
        if self.settings.routing != "input" or not self.state.means:
            return None
        from nlora.methods.parts.routing import Router

        return Router(self.state).route(ctx, examples)
