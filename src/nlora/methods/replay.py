"""Replay: a buffer of examples of each earlier task is mixed into the training data.

Rehearsal as in the paper's Table 1 (Replay), which trains all parameters. Neither that paper nor
O-LoRA's gives the buffer's size; published code keeps 1 % (Progressive Prompts) to 10 % (TRACE) of
each task. `buffer` is a share of the task's training data below 1, else a number of examples.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from nlora.data.task import Example, Task, sample
from nlora.methods.base import Learner, Stage
from nlora.methods.lora import LoraMethod, LoraSettings


class ReplaySettings(LoraSettings):
    """How much is kept of each task, and what is trained."""

    carrier: Literal["full", "lora"] = Field("full", description="what is trained")
    buffer: float = Field(
        0.1, gt=0, description="kept of each task: a share below 1, else a number of examples"
    )


class Replay(LoraMethod):
    """Train on the task and on what is kept of the earlier ones."""

    name = "replay"
    summary = "the task's examples mixed with a buffer of each earlier task's"
    paper = "arXiv:2410.10179, Table 1 (Replay)"
    continues = True
    Settings = ReplaySettings
    settings: ReplaySettings
    needs_old_data = True

    def __init__(self, settings: ReplaySettings) -> None:
        super().__init__(settings)
        self.kept: list[Example] = []

    @property
    def carrier(self) -> str:
        """All parameters or LoRA, as set."""
        return self.settings.carrier

    def examples(self, learner: Learner, stage: Stage) -> Sequence[Example]:
        """The task's examples and every kept one of earlier tasks."""
        return [*super().examples(learner, stage), *self.kept]

    def end(self, learner: Learner, stage: Stage) -> None:
        """Keep a label-stratified sample of the task."""
        super().end(learner, stage)
        size = self.settings.buffer
        for data in stage.tasks:
            count = math.ceil(size * len(data.train)) if size < 1 else int(size)
            self.kept.extend(sample(data.train, count, stage.seed))

    def save(self, folder: Path) -> None:
        """The kept examples with their tasks, and what every LoRA method keeps."""
        super().save(folder)
        rows = [{"task": e.task.to_json(), "text": e.text, "label": e.label} for e in self.kept]
        (folder / "buffer.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """The kept examples of every stage so far."""
        super().load(folder)
        rows = json.loads((folder / "buffer.json").read_text(encoding="utf-8"))
        self.kept = [Example(Task.from_json(r["task"]), r["text"], r["label"]) for r in rows]
