"""The tasks that a model directory has learned, as it kept them.

A task has one stage, or several where it was learned again: each brought tests of its own. All
tests of a task count as one; what each stage brought is told apart in `StageRecord.parts`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from typing import TYPE_CHECKING

from nlora.data.task import Example, Task, TaskData
from nlora.errors import NloraError, unknown
from nlora.store.directory import WATCHED, ModelDirectory, StageRecord
from nlora.store.records import taken_out
from nlora.store.shelf import Shelf

if TYPE_CHECKING:
    from nlora.methods.context import Stage

BROUGHT = "own_script"
"""The note of a stage whose update was trained outside of nlora."""


def learned_stages(directory: ModelDirectory) -> list[TaskData]:
    """What each stage has learned, in order, with the tests that it brought: a task may come again.

    Those that were taken out again are left out. Raises NloraError if a file of test examples was
    changed or is missing.
    """
    records = directory.stages()
    out = taken_out(records)
    standing = [record for record in records if record.folder not in out]
    return [data for record in standing for data in _kept(directory, record)]


def learned_tasks(directory: ModelDirectory) -> list[TaskData]:
    """The tasks learned so far with all their tests, in the order in which they were first learned.

    Raises NloraError if a file of test examples was changed or is missing.
    """
    return as_tasks(learned_stages(directory))


def last_learned(records: Sequence[StageRecord], task: str) -> StageRecord | None:
    """The stage in which a task was last learned, or None; one that stands, if any does.

    What was taken out is not there.
    """
    out = taken_out(records)
    mine = [
        record
        for record in records
        if record.folder not in out and any(known["name"] == task for known in record.tasks)
    ]
    standing = [record for record in mine if "rejected" not in record.notes]
    return (standing or mine)[-1] if mine else None


def as_tasks(stages: Sequence[TaskData]) -> list[TaskData]:
    """Each task once, as it is asked since it was last learned, with the tests of all its stages.

    A test that an earlier stage has brought already is not there twice.
    """
    found: dict[str, TaskData] = {}
    for data in stages:
        known = found.get(data.name)
        if known is None:
            found[data.name] = data
            continue
        tests = [replace(e, task=data.task) for e in known.test]
        tests += [data.test[i] for i in _new(known.test, data.test)]
        found[data.name] = replace(data, test=tuple(tests), dev=(), rows=None)
    return list(found.values())


def brought(stages: Sequence[TaskData]) -> list[list[int]]:
    """The stages of one task: which test of the task, as `as_tasks` lists them, each row is.

    Each row of a stage counts once, however often its text stands in the tests of others.
    """
    known: list[Example] = []
    found: list[list[int]] = []
    for data in stages:
        known += [data.test[i] for i in _new(known, data.test)]
        places: dict[tuple[str, str], list[int]] = {}
        for i, example in enumerate(known):
            places.setdefault(_same(example), []).append(i)
        rows = {same: cycle(there) for same, there in places.items()}
        found.append([next(rows[_same(example)]) for example in data.test])
    return found


def _new(known: Sequence[Example], tests: Sequence[Example]) -> list[int]:
    """Which of the tests are not known; one that stands there twice is new twice."""
    there = {_same(example) for example in known}
    return [i for i, example in enumerate(tests) if _same(example) not in there]


def _same(example: Example) -> tuple[str, str]:
    return example.text, example.label


def titles(records: Sequence[StageRecord]) -> list[str]:
    """The names of the stages, each once: the second of a name has (2) behind it, and so on."""
    seen: Counter[str] = Counter()
    found = []
    for record in records:
        seen[record.name] += 1
        times = seen[record.name]
        found.append(record.name if times == 1 else f"{record.name} ({times})")
    return found


def only_tested(directory: ModelDirectory) -> list[TaskData]:
    """The tasks that are tested after every stage and not trained, with their test examples; not
    one that a stage has learned which was set aside when it began to be watched, but one that was
    taken out of the model."""
    zero, watched = directory.zero_shot(), directory.shelf(WATCHED)
    kept = _kept(directory, zero) if zero is not None and zero.tasks else []
    kept += [data for record in watched.stages() for data in _kept(watched, record)]
    learned = learned_names(directory.stages())
    return [replace(data, only_tested=True) for data in kept if data.name not in learned]


def learned_names(records: Sequence[StageRecord]) -> set[str]:
    """The tasks that these stages have learned, without those that were taken out again."""
    out = taken_out(records)
    return {t["name"] for record in records if record.folder not in out for t in record.tasks}


def _kept(directory: Shelf, record: StageRecord) -> list[TaskData]:
    """The tasks of a stage, with the tests in its folder."""
    tests = directory.tests_of(record)
    found = []
    for value in record.tasks:
        task = Task.from_json(value)
        rows = tests.get(task.name, [])
        test = tuple(Example(task, row["text"], row["label"]) for row in rows)
        found.append(TaskData(task, (), test))
    return found


def answerable_tasks(directory: ModelDirectory) -> list[TaskData]:
    """`learned_tasks` of a model that can be used. Raises NloraError if it is none, or is empty."""
    directory.check_there()
    learned = learned_tasks(directory)
    if not learned:
        raise NloraError(f"{directory.path} has learned no task yet")
    return learned


def aligned(planned: Sequence[Stage], done: Sequence[StageRecord]) -> list[Stage]:
    """The planned stages with the numbers that they have in a directory that has been changed.

    A stage whose task was taken out, the one that took it out, and an update that was brought
    without a task stand there without tasks.
    """
    out = taken_out(done)
    if not (out or any(map(_brought_alone, done))):
        return list(planned)
    from nlora.methods.context import Stage

    left, found = iter(planned), []
    for record in done:
        gone = record.folder in out or "taken_out" in record.notes or _brought_alone(record)
        found.append(Stage(record.index, record.name, (), record.seed) if gone else next(left))
    found += left
    seeds = planned[0].seed - planned[0].index
    return [
        replace(stage, index=index, seed=(seeds + index) % 2**32)
        for index, stage in enumerate(found, start=1)
    ]


def _brought_alone(record: StageRecord) -> bool:
    """Whether a stage is an update that was trained elsewhere, and nobody said what it knows."""
    return BROUGHT in record.notes and not record.tasks


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
