"""GainLoRA: a new adapter per task, and gates that keep new ones out of old tasks.

"Gated Integration of Low-Rank Adaptation for Continual Learning of Large Language Models"
(arXiv:2505.15424), with InfLoRA's adapters as in the published code. Each update counts by a gate
of the input (`adapters.gated`). The gate of a new task begins as that of the last one, its key k in
the first direction that the new task's features x have outside of those of earlier tasks, with its
length. After every step, with P the projection on what earlier tasks brought to a layer,

    D ← D − (D − D₀)·P_m,   U ← U − (U − U₀)·P_h,   k ← k − (k − k₀)·P_x

so that on earlier inputs the gate stays what it was at its start, where k ⟂ x and a = 0. After the
task the spans take up its means m, hidden values h and features x, as the adapters' spans their
inputs (`parts.spaces`). It costs four passes over the task's examples, without gradients, two of
them through the embeddings alone. 100 hidden units and a share of 0.995 are the published code's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import Field

from nlora.adapters.settings import Count
from nlora.data.encode import IGNORED
from nlora.data.task import sample
from nlora.methods.inf_lora import InfLora
from nlora.methods.parts.spaces import SpacesSettings, SpacesState, directions, extended, outside

if TYPE_CHECKING:
    from torch import Tensor

    from nlora.adapters.gated import Gated
    from nlora.methods.context import Context


class GainLoraSettings(SpacesSettings):
    """The gates, and how much of what tasks read is kept."""

    gate_hidden: Count = Field(100, description="hidden units of a gate")


@dataclass
class GainLoraState(SpacesState):
    """What gates have read, and what the newest began with."""

    gate_bases: dict[str, Tensor] = field(default_factory=dict)
    """Orthonormal bases, one direction a row, of what `down`, `up` and `key` are multiplied by."""
    began: dict[str, Tensor] = field(default_factory=dict)
    """`down`, `up` and `key` of the newest gate as its stage began."""


class GainLora(InfLora):
    """A fresh adapter per task, and a gate on each that reads the input."""

    name = "gain-lora"
    summary = "inf-lora whose updates are each weighed by a gate of the input, closed to old tasks"
    paper = "arXiv:2505.15424"
    Settings = GainLoraSettings
    State = GainLoraState
    settings: GainLoraSettings
    state: GainLoraState

    @property
    def adapter(self) -> str:
        """Gated updates."""
        return "gated"

    def adapter_options(self) -> dict[str, Any]:
        """The size of the gates."""
        return {**super().adapter_options(), "hidden": self.settings.gate_hidden}

    @property
    def storage_grows(self) -> bool:
        """Updates and gates are kept one by one."""
        return True

    def begin(self, ctx: Context) -> None:
        """Start the gate where earlier tasks leave room."""
        import torch

        super().begin(ctx)
        gate = _adapter(ctx).gates()[-1]
        known = self.state.gate_bases.get("key")
        found, _ = directions(self._read(ctx)["key"], known)
        with torch.no_grad():
            new = found[0].to(gate.key) if len(found) else outside(gate.key, known)
            gate.key.copy_(new * (gate.key.norm() / new.norm().clamp(min=1e-12)))
        self.state.began = {part: p.detach().clone() for part, p in gate._asdict().items()}

    def after_step(self, ctx: Context) -> None:
        """Leave the newest gate on earlier inputs what it was when it began."""
        import torch

        super().after_step(ctx)
        with torch.no_grad():
            for part, parameter in _adapter(ctx).gates()[-1]._asdict().items():
                began = self.state.began[part].to(parameter)
                basis = self.state.gate_bases.get(part)
                parameter.copy_(began + outside(parameter - began, basis))

    def end(self, ctx: Context) -> None:
        """Let the gates' spans take up the task, too."""
        super().end(ctx)
        share = self.share_now(ctx)
        for part, covariance in self._read(ctx).items():
            known = self.state.gate_bases.get(part)
            self.state.gate_bases[part] = extended(known, covariance, share)
        self.state.began = {}

    def _read(self, ctx: Context) -> dict[str, Tensor]:
        """The mean of z zᵀ over the stage's texts, z what each part of the newest gate reads."""
        import torch

        gate, sums = _adapter(ctx).gates()[-1], {}
        count = 0
        with torch.no_grad():
            for means in self._means(ctx):
                values = means, gate.hidden(means), gate.features(means)
                for part, z in zip(gate._fields, values, strict=True):
                    sums[part] = sums.get(part, 0) + z.T @ z
                count += len(means)
        return {part: total / count for part, total in sums.items()}

    def _means(self, ctx: Context) -> Iterator[Tensor]:
        """m of the stage's texts, batch by batch."""
        from nlora.backbones.structure import last_run

        own = [example for data in ctx.stage.tasks for example in data.train]
        chosen = sample(own, self.settings.space_examples or len(own), ctx.stage.seed)
        for _, batch in ctx.batches(ctx.encoder.all(chosen)):
            mask = batch["attention_mask"].bool()
            if not ctx.encoder.encoder_decoder:
                mask = mask & ~last_run(batch["labels"] != IGNORED, mask)
            yield _adapter(ctx).means(batch["input_ids"], mask)


def _adapter(ctx: Context) -> Gated:
    from nlora.adapters.gated import Gated

    return ctx.adapter_as(Gated)
