"""EWC: parameters on which earlier answers depend are held where they were.

"Overcoming catastrophic forgetting in neural networks" (arXiv:1612.00796). To the loss of a task is
added, for the tasks k before it,

    ½·λ·Σ_k Σ_j F_kj (θ_j − θ*_kj)²

with θ*_k the parameters at the end of task k and F_k the diagonal Fisher information there
(`methods.fisher`): of the answers in the data, in a pass of its own, in evaluation mode, from
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

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import Parameter

from nlora.carriers.base import snapshot
from nlora.data.batches import Collator
from nlora.data.task import sample
from nlora.methods.base import Learner, Penalty, PerStage, Stage, Step, Term, per_stage
from nlora.methods.fisher import diagonal_fisher
from nlora.methods.lora import LoraMethod, LoraSettings

FILE = "ewc.safetensors"


class EwcSettings(LoraSettings):
    """What is trained, and how firmly it is held."""

    carrier: Literal["full", "lora"] = Field("full", description="what is trained")
    ewc_lambda: PerStage = Field(
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


class Anchored:
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
        self.held = list(zip(parameters, fisher, anchor, strict=True))
        self.constant = constant
        self.weight = weight

    @torch.no_grad()
    def __call__(self, step: Step) -> Term:
        """The value, and the gradient λF(θ − θ*)."""
        values, gradients = [], []
        for parameter, fisher, anchor in self.held:
            distance = parameter - anchor
            pull = self.weight * fisher * distance
            values.append(torch.dot(pull.flatten(), distance.flatten()))
            gradients.append((parameter, pull))
        value = 0.5 * (float(torch.stack(values).sum()) + self.weight * self.constant)
        return Term(value, gradients)

    def notes(self) -> dict[str, Any]:
        """Nothing is measured."""
        return {}


class Ewc(LoraMethod):
    """Train task after task, held by a quadratic penalty."""

    name = "ewc"
    summary = "parameters that earlier tasks depend on are held by a quadratic penalty"
    paper = "arXiv:1612.00796"
    continues = True
    Settings = EwcSettings
    settings: EwcSettings

    def __init__(self, settings: EwcSettings) -> None:
        super().__init__(settings)
        self.fisher: dict[str, Tensor] = {}
        """By parameter, over the tasks so far."""
        self.anchor: dict[str, Tensor] = {}
        """Separate: the F-weighted mean of the θ*. Online it is what the next stage begins with."""
        self.constant = 0.0
        """Separate: what is left of the penalty there, Σ_k Σ_j F_kj (anchor_j − θ*_kj)²."""

    @property
    def carrier(self) -> str:
        """All parameters or LoRA, as set."""
        return self.settings.carrier

    def own_weight(self) -> str | None:
        """λ of this penalty, unless there is one on the update's entries."""
        return super().own_weight() or "ewc_lambda"

    def begin(self, learner: Learner, stage: Stage) -> None:
        """Go on from the model as it stands."""
        super().begin(learner, stage)
        for name, parameter in _trained(learner).items():
            for kept in (self.fisher, self.anchor):  # which may come from a file
                if name in kept:
                    kept[name] = kept[name].to(parameter.device)

    def penalties(self, learner: Learner, stage: Stage) -> list[Penalty]:
        """The quadratic penalty from the second task on, beside that of every LoRA method."""
        terms = super().penalties(learner, stage)
        weight = per_stage(self.settings.ewc_lambda, stage.index, "ewc_lambda")
        if not self.fisher or weight == 0:
            return terms
        named = _trained(learner)
        anchor = [self.anchor[name] for name in named] if self.anchor else snapshot(named.values())
        fisher = [self.fisher[name] for name in named]
        return [*terms, Anchored(list(named.values()), fisher, anchor, self.constant, weight)]

    def end(self, learner: Learner, stage: Stage) -> None:
        """Take the Fisher information of the task, and put it with that of the earlier ones."""
        super().end(learner, stage)
        if self.settings.ewc_lambda == 0:
            return
        examples = sample(self.examples(learner, stage), self.settings.fisher_examples, stage.seed)
        encoder, watcher, named = learner.encoder, learner.watcher, _trained(learner)
        watcher.start(f"{stage.index} {stage.name}: Fisher information", len(examples))
        try:
            found = diagonal_fisher(
                learner.carrier.model,
                list(named.values()),
                [encoder(e) for e in examples],
                Collator(encoder.tokenizer.pad_token_id, encoder.encoder_decoder),
                watcher.advance,
            )
        finally:
            watcher.finish()
        new = dict(zip(named, found, strict=True))
        if self.settings.mode == "online":
            for name, fisher in self.fisher.items():
                new[name].add_(fisher, alpha=self.settings.decay)
            self.fisher = new
        else:
            self._add(new, named)

    @torch.no_grad()
    def _add(self, new: Mapping[str, Tensor], parameters: Mapping[str, Parameter]) -> None:
        """F(θ − a)² + F'(θ − θ*)² as one quadratic and a constant, entry by entry."""
        for name, parameter in parameters.items():
            if name not in self.fisher:
                self.fisher[name] = new[name]
                self.anchor[name] = parameter.detach().clone()
                continue
            distance = parameter - self.anchor[name]
            total = self.fisher[name] + new[name]
            share = torch.where(total > 0, new[name] / total, 0.0)
            self.constant += float((self.fisher[name] * share * distance.square()).sum())
            self.anchor[name] += share * distance
            self.fisher[name] = total

    def save(self, folder: Path) -> None:
        """Fisher information, anchor and constant; online the update itself is the anchor."""
        super().save(folder)
        if self.fisher:
            tensors = {f"fisher.{name}": tensor for name, tensor in self.fisher.items()}
            tensors |= {f"anchor.{name}": tensor for name, tensor in self.anchor.items()}
            tensors["constant"] = torch.tensor(self.constant, dtype=torch.float64)
            save_file(tensors, folder / FILE)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""
        super().load(folder)
        if not (folder / FILE).is_file():
            return
        tensors = load_file(folder / FILE)
        self.constant = float(tensors.pop("constant"))
        for key, tensor in tensors.items():
            kind, name = key.split(".", 1)
            {"fisher": self.fisher, "anchor": self.anchor}[kind][name] = tensor


def _trained(learner: Learner) -> dict[str, Parameter]:
    """The parameters that are trained, by name."""
    model = learner.carrier.model
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
