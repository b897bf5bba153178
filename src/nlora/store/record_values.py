"""What the dictionaries in `stage.json` must hold where they are read, and name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import ConfigDict, Field

from nlora.errors import NloraError
from nlora.store.reading import Count, Kind, Measured, check

if TYPE_CHECKING:
    from nlora.store.records import StageRecord


class TaskKept(Kind):
    """One of a record's `tasks`, as `Task.to_json` writes it."""

    model_config = ConfigDict(extra="forbid")

    name: str
    instruction: str | None = None
    labels: list[str] | None = Field(None, min_length=1)
    group: str = ""
    dataset: str = ""
    metric: str | None = None
    chat: bool = False


Pair = Annotated[list[Count], Field(min_length=2, max_length=2)]
"""How many rows are used, and how many there were."""


class RowsUsed(Kind):
    """Of a task, in a record's `budget`."""

    train: Pair
    test: Pair


class Budget(Kind):
    """What is read of a record's `budget`."""

    max_train: Count | None = None
    max_eval: Count | None = None
    rows: dict[str, RowsUsed] = Field(default_factory=dict)


class TakenOut(Kind):
    """Which task a stage has taken out of the model, and whose updates those were."""

    task: str | None = None
    stages: list[str] = Field(default_factory=list)


class Fall(Kind):
    """What a task loses by a stage, in points."""

    task: str
    lost: Measured
    too_far: bool


class Judged(Kind):
    """What the guard found of a stage."""

    falls: list[Fall]


class Notes(Kind):
    """What is read of a record's `notes`; a method's own may be anything."""

    taken_out: TakenOut = Field(default_factory=TakenOut)
    guard: Judged = Field(default_factory=lambda: Judged(falls=[]))
    on_top_of: str | None = None
    from_adapter: dict[str, Any] = Field(default_factory=dict)
    pending: dict[str, Any] = Field(default_factory=dict)
    routing: dict[str, Any] = Field(default_factory=dict)


def check_values(record: StageRecord, path: Path) -> None:
    """Raise NloraError, with file and key, for tasks, a budget or notes that are none."""
    for number, task in enumerate(record.tasks):
        check(TaskKept, task, path, "tasks", str(number))
    check(Budget, record.budget, path, "budget")
    check(Notes, record.notes, path, "notes")


def check_names(folder: Path, records: Iterable[StageRecord]) -> None:
    """Raise NloraError if a record names a stage, or corrects a task or a label, that nothing up to
    it has."""
    stages: set[str] = set()
    labels: dict[str, set[str]] = {}
    for record in records:
        path = f"{folder}/{record.folder}/stage.json"  # a Path of each takes as long as all else
        on = record.notes.get("on_top_of")
        if on is not None and on not in stages:
            raise NloraError(f"{path}: 'notes.on_top_of' names {on!r}, which is no earlier stage")
        stages.add(record.folder)
        for task in record.tasks:
            labels.setdefault(task["name"], set()).update(task.get("labels") or ())
        for name, matched in record.matched.items():
            if name not in labels:
                raise NloraError(f"{path}: 'matched' names the task {name!r}, which is not learned")
            if unknown := matched.offsets.keys() - labels[name]:
                raise NloraError(
                    f"{path}: 'matched.{name}' names {min(unknown)!r}, which is no label of it"
                )
