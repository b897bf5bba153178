"""What a method remembers from stage to stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Rehearsal:
    """What the setting `replay` keeps (`parts.rehearsal`)."""

    texts: list[str] = field(default_factory=list)
    """Neutral texts, the same for every task that has none of its own."""
    written: dict[str, list[str]] = field(default_factory=dict)
    """By task the texts that were written about it alone."""
    answers: list[dict[str, Any]] = field(default_factory=list)
    """By task: `task` as JSON, and `answers`, one for each text, as the model gave them right after
    it had learned the task."""
    probabilities: dict[str, Tensor] = field(default_factory=dict)
    """By task what it thought of each label then, (texts, labels) in fp32; a row sums to 1."""
    examples: list[dict[str, Any]] = field(default_factory=list)
    """Training examples of tasks, with their tasks, as JSON (`Example.to_json`)."""
    general: list[dict[str, Any]] = field(default_factory=list)
    """Likewise those of a general file."""

    def asked(self, task: str) -> list[str]:
        """The texts that a task was asked about."""
        return self.written.get(task, self.texts)

    def forget(self, task: str) -> None:
        """Let go of all that is kept of a task."""
        self.answers = [row for row in self.answers if row["task"]["name"] != task]
        self.examples = [row for row in self.examples if row["task"]["name"] != task]
        self.probabilities.pop(task, None)
        self.written.pop(task, None)


@dataclass
class State:
    """What a method remembers from stage to stage; a subclass is a dataclass with defaults.

    A field is a tensor, a list of tensors, tensors by name, a JSON value, or a dataclass of such
    fields, which is then its default factory (left out of the files where it has its default, if
    the field's metadata has `unless_default`). The state is written with every stage (safetensors
    and JSON) and read back by a run that goes on.
    """

    rehearsal: Rehearsal = field(
        default_factory=Rehearsal, kw_only=True, metadata={"unless_default": True}
    )
