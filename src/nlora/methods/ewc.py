"""EWC: parameters on which earlier answers depend are held where they were.

"Overcoming catastrophic forgetting in neural networks" (arXiv:1612.00796). To the loss of a task is
added, for the tasks k before it,

    ½·λ·Σ_k Σ_j F_kj (θ_j − θ*_kj)²

with θ*_k the parameters at the end of task k and F_k the diagonal Fisher information there
(`methods.parts.fisher`): of the answers in the data, in a pass of its own, in evaluation mode, from
per-example gradients. `mode` says how tasks are put together:

    separate   the sum above. It is itself one quadratic penalty, as the paper notes, with Σ_k F_k
               around the F-weighted mean of the θ*_k; kept as that, it costs the same at any task
    online     "Progress & Compress" (arXiv:1805.06370): F ← γF + F_k around the newest θ*_k alone,
               which does not count earlier tasks twice (arXiv:1712.03847)

Published λ belong to other losses and Fishers: 400 (TRACE, which sums squared batch gradients over
training, the penalty's included), 5000 of a grid from 500 to 50000 (ContinualLM); Avalanche and
Mammoth leave out the ½ and give no default, Avalanche squares batch gradients, Mammoth weights each
example by p(y|x). The default here is TRACE's: tune it. With λ = 0 over all parameters this is
`seq-ft`. Over LoRA one adapter is continued from task to task, as in `seq-lora`, and its A and B
are the θ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from nlora.data.task import sample
from nlora.methods.base import Penalty, Weight, per_stage
from nlora.methods.parts.lora import AnyAdapter, LoraMethod, LoraSettings, LoraState
from nlora.methods.parts.terms import Weighted
from nlora.progress import shown

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

    from nlora.methods.context import Context
    from nlora.methods.parts.terms import Pairs


class EwcSettings(LoraSettings):
    """What is trained, and how firmly it is held."""

    adapter: AnyAdapter = Field("full", description="what is trained")
    ewc_lambda: Weight = Field(
        400.0, description="λ, the weight of the penalty, one value or one per stage"
    )
    mode: Literal["separate", "online"] = Field(
        "separate",
        description="separate: a quadratic penalty per earlier task; online: one around the newest "
        "parameters, whose Fisher information decays",
    )
    decay: float = Field(
        1.0, ge=0, le=1, description="online: what is left of the Fisher information at each task"
    )
    fisher_examples: int | None = Field(
        1000,
        gt=0,
        description="training examples that the Fisher information is taken of; null: all",
    )


@dataclass
class EwcState(LoraState):
    """What is held, and where."""

    fisher: dict[str, Tensor] = field(default_factory=dict)
    """By parameter, over the tasks so far."""
    anchor: dict[str, Tensor] = field(default_factory=dict)
    """Separate: the F-weighted mean of the θ*. Online it is what the next stage begins with."""
    constant: float = 0.0
    """Separate: what is left of the penalty there, Σ_k Σ_j F_kj (anchor_j − θ*_kj)²."""


class Anchored(Weighted):
    """½·λ·(Σ_j F_j (θ_j − θ*_j)² + c)."""

    name = "ewc"

    def __init__(
        self,
        parameters: Sequence[Parameter],
        fisher: Sequence[Tensor],
        anchor: Sequence[Tensor],
        constant: float,
        weight: float,
    ) -> None:
        super().__init__(weight)
        self.held = list(zip(parameters, fisher, anchor, strict=True))
        self.constant = constant

    def value_and_pairs(self) -> tuple[Tensor, Pairs]:
        """½(Σ F(θ − θ*)² + c), and its gradient F(θ − θ*)."""
        import torch

        values, pairs = [], []
        for parameter, fisher, anchor in self.held:
            distance = parameter - anchor
            pull = fisher * distance
            values.append(torch.dot(pull.flatten(), distance.flatten()))
            pairs.append((parameter, pull))
        return 0.5 * (torch.stack(values).sum() + self.constant), pairs


class Ewc(LoraMethod):
    """Train task after task, held by a quadratic penalty."""

    name = "ewc"
    summary = "parameters that earlier tasks depend on are held by a quadratic penalty"
    paper = "arXiv:1612.00796"
    continues = True
    Settings = EwcSettings
    State = EwcState
    settings: EwcSettings
    state: EwcState

    @property
    def extra_passes(self) -> float:
        """That of the Fisher information."""
        return 1.0

    def own_weight(self) -> str | None:
        """λ of this penalty, unless there is one on the update's entries."""
        return super().own_weight() or "ewc_lambda"

    def penalties(self, ctx: Context) -> list[Penalty]:
        """The quadratic penalty from the second task on, beside that of every LoRA method."""
        terms = super().penalties(ctx)
        weight = per_stage(self.settings.ewc_lambda, ctx.stage.index, "ewc_lambda")
        state = self.state
        if not state.fisher or weight == 0:
            return terms
        from nlora.adapters.base import snapshot

        named = ctx.adapter.trained()
        anchors = state.anchor or dict(zip(named, snapshot(named.values()), strict=True))
        anchor = [anchors[name].to(p.device) for name, p in named.items()]
        fisher = [state.fisher[name].to(p.device) for name, p in named.items()]
        term = Anchored(list(named.values()), fisher, anchor, state.constant, weight)
        return [*terms, self.weighed(term, self.settings.ewc_lambda, ctx)]

    def end(self, ctx: Context) -> None:
        """Take the Fisher information of the task, and put it with that of the earlier ones."""
        super().end(ctx)
        if self.settings.ewc_lambda == 0:
            return
        import torch

        from nlora.methods.parts.fisher import diagonal_fisher

        stage, named = ctx.stage, ctx.adapter.trained()
        examples = sample(self.examples(ctx), self.settings.fisher_examples, stage.seed)
        title = f"{stage.index} {stage.name}: Fisher information"
        with shown(ctx.progress, title, len(examples)):
            found = diagonal_fisher(ctx, list(named.values()), ctx.encoder.all(examples))
        new = dict(zip(named, found, strict=True))
        if self.settings.mode == "online":
            for name, fisher in self.state.fisher.items():
                new[name].add_(fisher.to(new[name].device), alpha=self.settings.decay)
            self.state.fisher = new
        else:
            with torch.no_grad():
                self._add(new, named)

    def _add(self, new: Mapping[str, Tensor], parameters: Mapping[str, Parameter]) -> None:
        """F(θ − a)² + F'(θ − θ*)² as one quadratic and a constant, entry by entry."""
        import torch

        state = self.state
        for name, parameter in parameters.items():
            if name not in state.fisher:
                state.fisher[name] = new[name]
                state.anchor[name] = parameter.detach().clone()
                continue
            fisher = state.fisher[name].to(parameter.device)
            anchor = state.anchor[name].to(parameter.device)
            distance = parameter - anchor
            total = fisher + new[name]
            share = torch.where(total > 0, new[name] / total, 0.0)
            state.constant += float((fisher * share * distance.square()).sum())
            state.anchor[name] = anchor + share * distance
            state.fisher[name] = total
