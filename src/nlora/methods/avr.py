"""AVR: one LoRA adapter, walked back after each task until earlier tasks read as well as before.

The rule of the package avr-cl 0.1.0 (MIT): after a task, the perplexity of each earlier task's
training examples is compared with the best that it ever had. As long as one is more than `drift`
times that, the factors move a tenth of the way (`step`) to what they were before the task, at most
`max_steps` times. A and B are interpolated, not their product, as there. Other than there, the
perplexity is that of the answers, which is what is trained, and not of prompts too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import Field

from nlora.data.task import Example, sample
from nlora.methods.parts.lora import LoraSettings, LoraState
from nlora.methods.parts.rehearsal import taken_up
from nlora.methods.seq_lora import SeqLora

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nlora.methods.context import Context


class AvrSettings(LoraSettings):
    """When a task counts as drifting, and how far a step goes back."""

    drift: float = Field(
        1.15, ge=1, description="perplexity of earlier examples, as a multiple of the best, allowed"
    )
    step: float = Field(
        0.1, gt=0, le=1, description="how far back to the last task's factors each step goes"
    )
    max_steps: int = Field(10, ge=0, description="steps back after a task, at most")
    kept: int = Field(100, gt=0, description="training examples that are kept of each task")


@dataclass
class AvrState(LoraState):
    """What earlier tasks are checked by."""

    kept: list[dict[str, Any]] = field(default_factory=list)
    """Examples with their tasks, as JSON (`Example.to_json`)."""
    best: dict[str, float] = field(default_factory=dict)
    """The lowest perplexity of each task's examples so far."""
    steps: int = 0
    """Back, after the last task."""


class Avr(SeqLora):
    """Train one adapter on task after task, and walk it back where earlier tasks drift."""

    name = "avr"
    summary = "one LoRA adapter, walked back after each task until earlier examples drift no more"
    paper = "avr-cl 0.1.0, https://github.com/ARYAN2302/tiny-cl"
    Settings = AvrSettings
    State = AvrState
    settings: AvrSettings
    state: AvrState
    needs_previous = True

    @property
    def needs_old_data(self) -> bool:
        """Perplexities of earlier tasks' training examples decide."""
        return True

    @property
    def extra_passes(self) -> float:
        """What is kept is read again after each step back, and twice beside; so often at most."""
        return self.settings.max_steps + 2.0

    def end(self, ctx: Context) -> None:
        """Walk back, and keep examples of the task."""
        super().end(ctx)
        adapter = ctx.adapter
        with ctx.previous():
            before = [tensor.detach().clone() for tensor in adapter.update().values()]
        mine = self._taken_up(ctx)
        self._note_best(dict(self._perplexities(ctx, mine)))
        steps = 0
        while (found := self._holding(ctx)) is None and steps < self.settings.max_steps:
            for tensor, old in zip(adapter.update().values(), before, strict=True):
                tensor.detach().lerp_(old, self.settings.step)
            adapter.consolidate()
            steps += 1
        self._note_best(found or dict(self._perplexities(ctx, self.state.kept)))
        if steps:
            self._note_best(dict(self._perplexities(ctx, mine)))
        self.state.kept += mine
        self.state.steps = steps

    def _taken_up(self, ctx: Context) -> list[dict[str, Any]]:
        """What is kept of the stage's tasks: of one that is learned again, of all its examples.

        Until the walk is over it is not among what earlier tasks are checked by.
        """
        most, mine = self.settings.kept, []
        for data in ctx.stage.tasks:
            new = sample(data.train, most, ctx.stage.seed)
            self.state.kept, own = taken_up(self.state.kept, ctx, data.name, new, most)
            self.state.best.pop(data.name, None)
            mine += own
        return mine

    def notes(self, ctx: Context) -> dict[str, Any]:
        """How often it went back."""
        return {**super().notes(ctx), "walked_back": self.state.steps}

    def _note_best(self, found: dict[str, float]) -> None:
        for task, value in found.items():
            self.state.best[task] = min(value, self.state.best.get(task, math.inf))

    def _holding(self, ctx: Context) -> dict[str, float] | None:
        """The perplexities of earlier tasks; None as soon as one drifts, which is enough."""
        found = {}
        for task, value in self._perplexities(ctx, self.state.kept):
            if value > self.settings.drift * self.state.best[task]:
                return None
            found[task] = value
        return found

    def _perplexities(
        self, ctx: Context, rows: Sequence[dict[str, Any]]
    ) -> Iterator[tuple[str, float]]:
        """exp of the mean −ln p over the tokens of the answers, by task."""
        examples: dict[str, list[Example]] = {}
        for row in rows:
            example = Example.from_json(row)
            examples.setdefault(example.task.name, []).append(example)
        for task, mine in examples.items():
            tokens = sum(len(encoded.answer) for encoded in ctx.encoder.all(mine))
            yield task, math.exp(-sum(ctx.score(mine)) / tokens)
