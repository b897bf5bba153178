"""The tasks that a model directory has learned, as it kept them.

A task has one stage, or several where it was learned again: each brought tests of its own. All
tests of a task count as one; what each stage brought is told apart in `StageRecord.parts`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from nlora.data.task import Example, Task, TaskData
from nlora.errors import NloraError
from nlora.store.directory import WATCHED, ModelDirectory, StageRecord


def learned_stages(directory: ModelDirectory) -> list[TaskData]:
    """What each stage has learned, in order, with the tests that it brought: a task may come again.

    Raises NloraError if a file of test examples was changed or is missing.
    """
    return [data for record in directory.stages() for data in _kept(directory, record)]


def learned_tasks(directory: ModelDirectory) -> list[TaskData]:
    """The tasks learned so far with all their tests, in the order in which they were first learned.

    Raises NloraError if a file of test examples was changed or is missing.
    """
    return as_tasks(learned_stages(directory))


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
    """The stages of one task: which tests of the task, as `as_tasks` lists them, each has."""
    known: list[Example] = []
    found: list[list[int]] = []
    for data in stages:
        known += [data.test[i] for i in _new(known, data.test)]
        places: dict[tuple[str, str], list[int]] = {}
        for i, example in enumerate(known):
            places.setdefault(_same(example), []).append(i)
        found.append(sorted({i for example in data.test for i in places[_same(example)]}))
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
    """The tasks that are tested after every stage and never trained, with their test examples."""
    zero, watched = directory.zero_shot(), directory.shelf(WATCHED)
    kept = _kept(directory, zero) if zero is not None and zero.tasks else []
    kept += [data for record in watched.stages() for data in _kept(watched, record)]
    return [replace(data, only_tested=True) for data in kept]


def _kept(directory: ModelDirectory, record: StageRecord) -> list[TaskData]:
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
    if not directory.exists():
        raise NloraError(f"{directory.path} holds no model")
    learned = learned_tasks(directory)
    if not learned:
        raise NloraError(f"{directory.path} has learned no task yet")
    return learned
