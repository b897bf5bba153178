"""The tasks that a model directory has learned, as it kept them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from nlora.data.task import Example, Task, TaskData
from nlora.errors import NloraError, unknown
from nlora.store.directory import ModelDirectory, StageRecord
from nlora.store.records import taken_out

if TYPE_CHECKING:
    from nlora.methods.context import Stage


def learned_tasks(directory: ModelDirectory) -> list[TaskData]:
    """The tasks learned so far with their test examples, in the order in which they were learned.

    Those that were taken out again are left out. Raises NloraError if a file of test examples was
    changed or is missing.
    """
    tests = directory.tests()
    found = []
    records = directory.stages()
    out = taken_out(records)
    for record in (r for r in records if r.folder not in out):
        for value in record.tasks:
            task = Task.from_json(value)
            rows = tests.get(task.name, [])
            test = tuple(Example(task, row["text"], row["label"]) for row in rows)
            found.append(TaskData(task, (), test))
    return found


def only_tested(directory: ModelDirectory) -> list[TaskData]:
    """The tasks that are tested after every stage and never trained, with their test examples."""
    zero = directory.zero_shot()
    tests = directory.tests() if zero is not None and zero.tasks else {}
    found = []
    for value in zero.tasks if zero is not None else []:
        task = Task.from_json(value)
        test = tuple(Example(task, row["text"], row["label"]) for row in tests.get(task.name, []))
        found.append(TaskData(task, (), test, only_tested=True))
    return found


def answerable_tasks(directory: ModelDirectory) -> list[TaskData]:
    """`learned_tasks` of a model that can be used. Raises NloraError if it is none, or is empty."""
    if not directory.exists():
        raise NloraError(f"{directory.path} holds no model")
    learned = learned_tasks(directory)
    if not learned:
        raise NloraError(f"{directory.path} has learned no task yet")
    return learned


def aligned(planned: Sequence[Stage], done: Sequence[StageRecord]) -> list[Stage]:
    """The planned stages with the numbers that they have in a directory that has been changed.

    A stage whose task was taken out, and the one that took it out, stand there without tasks.
    """
    out = taken_out(done)
    if not out:
        return list(planned)
    from nlora.methods.context import Stage

    left, found = iter(planned), []
    for record in done:
        gone = record.folder in out or "taken_out" in record.notes
        found.append(Stage(record.index, record.name, (), record.seed) if gone else next(left))
    found += left
    seeds = planned[0].seed - planned[0].index
    return [
        replace(stage, index=index, seed=(seeds + index) % 2**32)
        for index, stage in enumerate(found, start=1)
    ]


def stage_number(records: Sequence[StageRecord], asked: str) -> int:
    """The number of the stage that is asked for by its number, name or folder; 0 is before all.

    Raises NloraError if there is none, or if there are several of that name.
    """
    if asked.isdecimal() and int(asked) <= len(records):
        return int(asked)
    found = [r.index for r in records if asked in (r.name, r.folder)]
    if len(found) > 1:
        numbers = ", ".join(map(str, found))
        raise NloraError(f"several stages are called '{asked}': name one by its number, {numbers}")
    if not found:
        numbers = [str(record.index) for record in records]
        raise unknown("stage", asked, ["0", *numbers, *(record.name for record in records)])
    return found[0]
