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

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field

from nlora.errors import NloraError
from nlora.merging.registry import checked, consolidation
from nlora.methods.base import Method, Penalty, Route, State, per_stage
from nlora.methods.parts.auto import AUTO, Climbing, automatic, without_held_out
from nlora.methods.parts.sparsity import ProximalSparsity, SparseSettings, Sparsity
from nlora.methods.parts.terms import Weighted, ready

if TYPE_CHECKING:
    from torch import Tensor

    from nlora.data.task import Example
    from nlora.methods.context import Context, Stage

ConsolidationName = Annotated[str, AfterValidator(checked)]
"""A setting that names a consolidation, built-in or a plug-in's."""


class LoraSettings(SparseSettings):
    """The settings that every LoRA method has."""

    consolidation: ConsolidationName = Field(
        "sum",
        description="how updates make one model: their sum, per entry the largest, ties, dare or "
        "magnitude (sparsified first), retract (folded into one of their rank), or none, where "
        "each stands alone",
    )
    routing: Literal["none", "input", "task"] = Field(
        "none",
        description="which state of the model answers: the newest (none), the one after the task "
        "that the input is taken for (input) or said to belong to (task)",
    )
    route_by: Literal["text", "prompt"] = Field(
        "text",
        description="what routing=input looks at: the bare text, or the prompt with instruction "
        "and options, which may name the task",
    )
    router: Literal["discriminant", "nearest-mean"] = Field(
        "discriminant",
        description="how routing=input chooses: by linear discriminant analysis, or by the nearest "
        "of the tasks' means",
    )
    unknown: Literal["none", "base", "nearest"] = Field(
        "none",
        description="what answers a text far from every task, where predict is told no task: "
        "nothing (none), the base model (base), or the nearest task's model (nearest)",
    )
    unknown_quantile: float = Field(
        0.99,
        gt=0.5,
        lt=1,
        description="the share of a task's own texts that are not to count as far from it",
    )


AnyAdapter = Literal["full", "lora", "peft"]
"""A setting that says what is trained: all parameters, LoRA, or any tuner of PEFT's."""


class TunedSettings(LoraSettings):
    """The settings of a method that works with any tuner of PEFT's, too."""

    adapter: Literal["lora", "peft"] = Field(
        "lora", description="what is trained: LoRA, or the tuner of PEFT's that peft_type names"
    )


@dataclass
class RouterState:
    """What a router keeps of the stages (`parts.routing`)."""

    means: list[Tensor] = field(default_factory=list)
    """Of the features of a stage's texts, (d,)."""
    stages: list[int] = field(default_factory=list)
    """The stages that these are of: a stage that was not accepted has none."""
    scatter: Tensor | None = None
    """Of all features around the means of their stages, summed, (d, d)."""
    texts: int = 0
    """How many texts there were."""
    counts: dict[str, int] = field(default_factory=dict)
    """How many of each stage."""
    held_out: dict[str, Tensor] = field(default_factory=dict)
    """Features of some of each stage's texts, (m, d), to measure the router by."""
    limits: dict[str, float] = field(default_factory=dict)
    """By stage the distance beyond which a text counts as far."""
    temperature: float = 1.0
    """What scores are divided by to be log-probabilities."""
    layers: int | None = None
    """Of how many of the base model's layers its features are; None is all of them, as it was."""


@dataclass
class LoraState(State):
    """What routers keep, where routing is by the input."""

    by_text: RouterState = field(default_factory=RouterState)
    by_prompt: RouterState = field(default_factory=RouterState)
    """Where the setting asks for it."""


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
        if settings.l1 == AUTO and settings.penalty == "column-row":
            raise NloraError(f"{self.name}: penalty 'column-row' has no l1=auto; give a weight")
        given = settings.model_fields_set & {"penalty", "l1"}
        if given == {"penalty"} and settings.penalty != "none" and settings.l1 == 0:
            raise NloraError(f"{self.name}: penalty '{settings.penalty}' needs a weight; set l1")
        if given == {"l1"} and settings.penalty == "none" and settings.l1 != 0:
            raise NloraError(f"{self.name}: l1 weighs a penalty, and there is none; set penalty")

    def _refuse(self, setting: str, where: bool) -> None:
        if where:
            value = getattr(self.settings, setting)
            choice = "adapter" in type(self.settings).model_fields
            instead = "set adapter=lora" if choice else f"and this method trains '{self.adapter}'"
            raise NloraError(f"{self.name}: {setting} '{value}' needs LoRA adapters; {instead}")

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

    def goes_on(self, stage: Stage) -> bool:
        """Also where updates stand alone and the task was learned before: it has one of its own."""
        return self.continues or (stage.again and self._alone)

    def lora_first_stage(self) -> dict[str, Any]:
        """What decides the first stage of a method that adds nothing to it but these settings."""
        s = self.settings
        weight = per_stage(s.l1, 1, "l1")
        penalised = s.penalty != "none" and weight
        routed = s.routing == "input"
        climbs = automatic(s)
        return {
            **({"auto": climbs} if climbs else {}),
            "penalty": [s.penalty, weight, s.l1_unit] if penalised else None,
            "consolidation": s.consolidation,
            "routing": [s.routing, s.route_by, s.router, s.unknown_quantile]
            if routed
            else s.routing,
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
        unit = "sum" if s.l1 == AUTO else s.l1_unit
        term = kind(ctx.adapter_as(Lora).whole().values(), s.penalty, weight, unit, ctx.stage.steps)
        return [self.weighed(ready(term), s.l1, ctx)]

    def weighed(self, term: Weighted, weight: Any, ctx: Context) -> Penalty:
        """The term of a setting, whose weight climbs where the setting is `auto`; no hook."""
        return Climbing(term, ctx) if weight == AUTO else term

    def examples(self, ctx: Context) -> Sequence[Example]:
        """The stage's training examples, without those that a weight is found by."""
        return without_held_out(ctx.stage) if automatic(self.settings) else super().examples(ctx)

    def measured(self, stage: int) -> list[str]:
        """ℓ₁ and its like, where the weight is a ratio."""
        s = self.settings
        relative = s.penalty != "none" and s.l1_unit == "relative" and s.l1 != AUTO
        return ["l1"] if relative and per_stage(s.l1, stage, "l1") else []

    @property
    def routes_by_input(self) -> bool:
        """As the setting says, or where a subclass has a rule of its own."""
        return self.settings.routing == "input" or self._own_rule

    @property
    def _own_rule(self) -> bool:
        return type(self).route is not LoraMethod.route

    def end(self, ctx: Context) -> None:
        """Let the router take up the stage."""
        if self.settings.routing == "input":
            for router in self._routers():
                router.learn(ctx)

    def take_out(self, stage: int) -> None:
        """Let the routers forget the stage."""
        if self.State is not LoraState:
            super().take_out(stage)
        if self.settings.routing == "input":
            for router in self._routers():
                router.take_out(stage)

    def notes(self, ctx: Context) -> dict[str, Any]:
        """What the router takes for what, on held-out training texts."""
        if self.settings.routing != "input":
            return {}
        routers = self._routers()
        router = routers[-1]
        names = {ctx.stage_of(data.name): data.name for data in reversed(ctx.stream)}
        names[ctx.stage.index] = ctx.stage.tasks[0].name
        held_out, lines = router.report(names)
        if len(routers) > 1:  # texts whose task is not named are routed by themselves
            lines += routers[0].report(names)[1]
        order = [names[stage] for stage in router.state.stages]
        told = {"by": router.by, "tasks": order, "held_out": held_out, "unclear": lines}
        return {"routing": told}

    def route(self, ctx: Context, examples: Sequence[Example]) -> list[int] | None:
        """The stage that each input is taken for, where routing is by the input."""
        found = self.routes(ctx, examples)
        return None if found is None else [route.stage for route in found]

    def routes(
        self, ctx: Context, examples: Sequence[Example], named: bool = True
    ) -> list[Route] | None:
        """The stage that each input is taken for, and how sure that is."""
        if self._own_rule:
            return super().routes(ctx, examples, named)
        if self.settings.routing != "input" or not self.state.by_text.means:
            return None
        return self._routers()[-1 if named else 0].routes(ctx, examples)

    def alike(self, ctx: Context) -> Mapping[int, Collection[int]]:
        """What the router by texts confuses, on held-out training texts."""
        if self.settings.routing != "input" or self._own_rule or not self.state.by_text.means:
            return {}
        return self._routers()[0].alike()

    def _routers(self) -> list[Any]:
        """The router by texts, and the one by prompts where the setting asks for it."""
        from nlora.methods.parts.routing import Router

        how = self.settings.unknown_quantile, self.settings.router
        found = [Router(self.state.by_text, "text", *how)]
        if self.settings.route_by == "prompt":
            found.append(Router(self.state.by_prompt, "prompt", *how))
        return found
