"""Replay: a buffer of examples of each earlier task is mixed into the training data.

Rehearsal as in the paper's Table 1 (Replay), which trains all parameters. Neither that paper nor
O-LoRA's gives the buffer's size; published code keeps 1 % (Progressive Prompts) to 10 % (TRACE) of
each task. `buffer` is a share of the task's training data below 1, else a number of examples.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from nlora.methods.base import MixedIn
from nlora.methods.parts.lora import AnyAdapter, LoraMethod, LoraSettings, LoraState
from nlora.methods.parts.rehearsal import asked_as_now, chosen, taken_up
from nlora.methods.settings import LARGEST, share_or_number

if TYPE_CHECKING:
    from nlora.methods.context import Context


class ReplaySettings(LoraSettings):
    """How much is kept of each task, and what is trained."""

    adapter: AnyAdapter = Field("full", description="what is trained")
    buffer: Annotated[float, Field(gt=0, le=LARGEST), share_or_number("examples")] = Field(
        0.1, description="kept of each task: a share below 1, else a number of examples"
    )


@dataclass
class ReplayState(LoraState):
    """The buffer."""

    kept: list[dict[str, Any]] = field(default_factory=list)
    """Examples with their tasks, as JSON (`Example.to_json`)."""


class Replay(LoraMethod):
    """Train on the task and on what is kept of the earlier ones."""

    name = "replay"
    summary = "the task's examples mixed with a buffer of each earlier task's"
    paper = "arXiv:2410.10179, Table 1 (Replay)"
    continues = True
    Settings = ReplaySettings
    State = ReplayState
    settings: ReplaySettings
    state: ReplayState

    @property
    def needs_old_data(self) -> bool:
        """The buffer is old data."""
        return True

    @property
    def extra_passes(self) -> float:
        """Where it is ranked what to keep."""
        return 0.0 if self.settings.keep_by == "uniform" else 1.0

    def mixed_in(self, ctx: Context) -> MixedIn:
        """Every kept example of earlier tasks."""
        return MixedIn(asked_as_now(self.state.kept, ctx))

    def kept_examples(self) -> dict[str, int]:
        """The buffer's, too."""
        buffer = Counter(row["task"]["name"] for row in self.state.kept)
        return dict(buffer + Counter(super().kept_examples()))

    def end(self, ctx: Context) -> None:
        """Keep some of the task's examples, as `keep_by` says."""
        super().end(ctx)
        size = self.settings.buffer
        for data in ctx.stage.tasks:
            count = math.ceil(size * len(data.train)) if size < 1 else int(size)
            new = chosen(ctx, data.train, count, self.settings.keep_by)
            most = None if size < 1 else count  # a share is one of each stage's
            others, mine = taken_up(self.state.kept, ctx, data.name, new, most)
            self.state.kept = [*others, *mine]
