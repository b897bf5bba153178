"""What a stream is made of: tasks, their examples and their splits."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Task:
    """What a prompt needs to know of a task; the examples are in `TaskData`.

    `labels` are the answers to choose from, in the order in which the prompt lists them; None means
    that answers are free text. `instruction` None means that there is none (COPA's text asks the
    question itself). `group` and `dataset` are the names in the prefix of the released
    prompts ("Task:SC", "Dataset:amazon"). `metric` names what answers are measured by
    (`nlora.evaluation.metrics`); None is exact match. With `chat` texts are conversations
    (`nlora.data.messages`), which are read through the model's chat template.
    """

    name: str
    instruction: str | None = None
    labels: tuple[str, ...] | None = None
    group: str = ""
    dataset: str = ""
    metric: str | None = None
    chat: bool = False

    def to_json(self) -> dict:
        """The task as JSON; `from_json` reads it back."""
        found = asdict(self) | {"labels": list(self.labels) if self.labels is not None else None}
        if self.metric is None:  # as before there were others: fingerprints must not change
            del found["metric"]
        if not self.chat:
            del found["chat"]
        return found

    @classmethod
    def from_json(cls, value: dict) -> "Task":
        """The task that `to_json` wrote."""
        labels = value.get("labels")
        return cls(**{**value, "labels": tuple(labels) if labels is not None else None})


@dataclass(frozen=True, slots=True)
class Example:
    """One text and its answer. It knows its task, so examples of several tasks can be mixed."""

    task: Task
    text: str
    label: str
    place: str = field(default="", compare=False, repr=False)
    """File and line of a chat, for what its model's template says of it later."""

    def to_json(self) -> dict:
        """The example with its task as JSON; `from_json` reads it back."""
        return {"task": self.task.to_json(), "text": self.text, "label": self.label}

    @classmethod
    def from_json(cls, value: dict) -> "Example":
        """The example that `to_json` wrote."""
        return cls(Task.from_json(value["task"]), value["text"], value["label"])


@dataclass(frozen=True, slots=True)
class TaskData:
    """A task with its three splits. Select on `dev`, report on `test`."""

    task: Task
    train: tuple[Example, ...]
    test: tuple[Example, ...]
    dev: tuple[Example, ...] = ()
    only_tested: bool = False
    """It is never trained: it shows what happens to an ability that nobody trains."""
    notes: tuple[str, ...] = ()
    """What reading its files decided and left out, in words."""
    bad_rows: int = 0
    """How many rows were left out because they could not be read."""
    rows: tuple[int, int] | None = field(default=None, compare=False)
    """How many there were to train and to test on before a sample was drawn."""
    origin: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)
    """What `data.origin.read_again` reads it again by, as JSON; None for rows of a script."""

    def used(self) -> dict[str, list[int]]:
        """Of `train` and `test`, how many rows are used and how many there were."""
        there = self.rows or (len(self.train), len(self.test))
        return {"train": [len(self.train), there[0]], "test": [len(self.test), there[1]]}

    @property
    def name(self) -> str:
        return self.task.name

    def fingerprint(self) -> str:
        """A hash of all that training and testing on this task depends on."""
        rows = [[(e.text, e.label) for e in split] for split in (self.train, self.test)]
        return digest([self.task.to_json(), rows])


def digest(value: object) -> str:
    """The first 16 hex digits of the SHA-256 of a JSON value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sample(
    examples: Sequence[Example], count: int | None, seed: int, stratify: bool = True
) -> tuple[Example, ...]:
    """At most `count` examples, in their original order, the same for the same seed.

    With `stratify` every label keeps its share (largest remainders), so that a small sample still
    has every class; free-text tasks (no label list) are sampled plainly.
    """
    import numpy as np

    if count is None or count >= len(examples):
        return tuple(examples)
    rng = np.random.default_rng(seed)
    groups: dict[str, list[int]] = {}
    for i, example in enumerate(examples):
        by_label = stratify and example.task.labels is not None
        groups.setdefault(example.label if by_label else "", []).append(i)
    exact = {label: count * len(rows) / len(examples) for label, rows in groups.items()}
    take = {label: int(share) for label, share in exact.items()}
    by_remainder = sorted(groups, key=lambda label: take[label] - exact[label])
    for label in by_remainder[: count - sum(take.values())]:
        take[label] += 1
    chosen = [
        i
        for label, rows in sorted(groups.items())
        for i in rng.choice(rows, size=take[label], replace=False)
    ]
    return tuple(examples[i] for i in sorted(chosen))
