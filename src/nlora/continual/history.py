"""What a model directory has been through: its stages, what they gave and cost, what is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nlora.continual.holding import held
from nlora.continual.offsets import in_force
from nlora.continual.results import by_tests
from nlora.continual.tasks import as_tasks, learned_names, learned_stages
from nlora.store.directory import WATCHED, ModelDirectory, StageRecord
from nlora.store.records import taken_out


def history(directory: ModelDirectory) -> dict[str, Any]:
    """The life of a model: `stages` in order, `only_tested` tasks, those whose answers are
    `matched` (`continual.offsets`), what is `kept` of data, how many tests are asked where stages
    have the same (`shared`), rollbacks that can be `undone`, and
    the stage that is `held`: trained and not in force.

    Of each stage when it was committed, its data, the accuracy of its tasks then and now with what
    was forgotten (the best since then minus now), all three over the tests that this stage brought,
    and its size. Neither model nor updates are read.
    Raises NloraError where there is no model.
    """
    directory.check_there()
    config, records = directory.config(), directory.stages()
    zero, learned = directory.zero_shot(), learned_names(records)
    return {
        "path": str(directory.path),
        "method": config.get("method"),
        "base": config.get("base", {}).get("title") or config.get("model"),
        "bytes": size(directory.path),
        "stages": _stages(directory, records),
        "only_tested": [
            _only_tested(first, records, task["name"])
            for first in [*([zero] if zero else []), *directory.watched()]
            for task in first.tasks
            if task["name"] not in learned
        ],
        "matched": sorted(in_force(records)),
        "kept": kept(directory),
        "shared": _shared(directory),
        "undone": set_aside(directory),
        "held": held(directory),
    }


def set_aside(directory: ModelDirectory) -> list[dict[str, Any]]:
    """The rollbacks that can be undone, each with its number, its stages, and when it was."""
    return [
        {"number": int(one.path.name), "stages": list(one.stages), "when": one.when}
        for one in directory.undone.rollbacks()
    ]


def size(folder: Path) -> int:
    """The bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def kept(directory: ModelDirectory) -> dict[str, dict[str, int]]:
    """How many examples a directory holds, by task: to test with, those of tasks that are only
    tested among them, and to train on again.

    The last are those of the method's memory after the last stage, such as a replay buffer.
    """
    records = directory.stages()
    memory = Counter(_examples(directory.remembered(records[-1]))) if records else Counter()
    tests: Counter[str] = Counter()
    for shelf in (directory, directory.shelf(WATCHED)):
        tests.update({task: len(rows) for task, rows in shelf.tests().items()})
    return {"test": dict(tests), "train": dict(memory)}


def _shared(directory: ModelDirectory) -> dict[str, int]:
    """How many tests each task is asked that has some of several stages: those count once."""
    stages = learned_stages(directory)
    brought: Counter[str] = Counter()
    for data in stages:
        brought[data.name] += len(data.test)
    asked = {data.name: len(data.test) for data in as_tasks(stages)}
    return {task: count for task, count in asked.items() if count < brought[task]}


def _examples(value: Any) -> Iterator[str]:
    """The task of every example in a method's memory, as `Example.to_json` writes them."""
    if isinstance(value, dict) and {"task", "text"} <= value.keys():
        task = value["task"]
        yield task["name"] if isinstance(task, dict) else str(task)
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _examples(inner)


def _stages(directory: ModelDirectory, records: Sequence[StageRecord]) -> list[dict[str, Any]]:
    out, scores = taken_out(records), _scores(records)
    return [
        _stage(directory.stage_path(record), record, _state(record, out))
        | {"tasks": [_task(record, t["name"], scores) for t in record.tasks]}
        for record in records
    ]


def _stage(folder: Path, record: StageRecord, state: str) -> dict[str, Any]:
    return {
        "stage": record.index,
        "name": record.name,
        "when": record.finished or _written(folder / "stage.json"),
        "state": state,
        "tasks": [],
        "examples": record.examples,
        "steps": record.steps,
        "seconds": sum(record.seconds.values()),
        "bytes": size(folder),
        "update_bytes": size(folder / "update"),
    }


def _state(record: StageRecord, out: Collection[str]) -> str:
    if record.folder in out:
        return "taken out"
    return "not accepted" if "rejected" in record.notes else "in force"


@dataclass
class Scores:
    """By task and the folder of the stage that brought the tests, accuracies on these tests."""

    then: dict[tuple[str, str], float | None] = field(default_factory=dict)
    """Right after that stage."""
    best: dict[tuple[str, str], float] = field(default_factory=dict)
    """The best from then on, but for the last stage."""
    now: dict[tuple[str, str], float | None] = field(default_factory=dict)


def _scores(records: Sequence[StageRecord]) -> Scores:
    """Each accuracy is looked at once."""
    found = Scores()
    first: dict[str, str] = {}
    for record in records:
        gone = taken_out([record])
        if gone:
            first = {task: folder for task, folder in first.items() if folder not in gone}
        for task in record.tasks:
            first.setdefault(task["name"], record.folder)
        found.now = by_tests(record, first, "accuracy")
        for task in record.tasks:
            own = task["name"], record.folder
            found.then[own] = found.now.get(own)
        if record is records[-1]:
            break
        for key, value in found.now.items():
            if value is not None:
                found.best[key] = max(value, found.best.get(key, value))
    return found


def _task(record: StageRecord, task: str, scores: Scores) -> dict[str, Any]:
    """A task's data, its accuracy right after its stage and now, and what was lost since the
    best."""
    own = task, record.folder
    now, highest = scores.now.get(own), scores.best.get(own)
    return {
        "name": task,
        "data": record.fingerprints.get(task),
        "rows": record.budget.get("rows", {}).get(task),
        "then": scores.then[own],
        "now": now,
        "forgotten": None if highest is None or now is None else highest - now,
    }


def _only_tested(
    first: StageRecord, records: Sequence[StageRecord], task: str
) -> dict[str, str | float | None]:
    """What a task had when it was added, and has now, where the last stage was tested on it."""
    last = records[-1] if records else first
    return {"name": task, "before": first.accuracy.get(task), "now": last.accuracy.get(task)}


def _written(path: Path) -> str:
    """When a file was written, for records that do not say when their stage was."""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
