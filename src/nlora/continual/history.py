"""What a model directory has been through: its stages, what they gave and cost, what is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nlora.errors import NloraError
from nlora.store.directory import ModelDirectory, StageRecord
from nlora.store.records import taken_out


def history(directory: ModelDirectory) -> dict[str, Any]:
    """The life of a model: `stages` in order, `only_tested` tasks, what is `kept` of data, and
    rollbacks that can be `undone`.

    Of each stage when it was committed, its data, the accuracy of its tasks then and now with what
    was forgotten (the best since then minus now), and its size. Neither model nor updates are read.
    Raises NloraError where there is no model.
    """
    if not directory.exists():
        raise NloraError(f"{directory.path} holds no model")
    config, records = directory.config(), directory.stages()
    zero = directory.zero_shot()
    return {
        "path": str(directory.path),
        "method": config.get("method"),
        "base": config.get("base", {}).get("title") or config.get("model"),
        "bytes": size(directory.path),
        "stages": [_stage(directory, records, record) for record in records],
        "only_tested": [_only_tested(zero, records, t["name"]) for t in zero.tasks] if zero else [],
        "kept": kept(directory),
        "undone": [
            {"number": int(one.path.name), "stages": list(one.stages), "when": one.when}
            for one in directory.undone.rollbacks()
        ],
    }


def size(folder: Path) -> int:
    """The bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def kept(directory: ModelDirectory) -> dict[str, dict[str, int]]:
    """How many examples a directory holds, by task: to test with, and to train on again.

    The second are those of the method's memory after the last stage, such as a replay buffer.
    """
    records = directory.stages()
    memory = Counter(_examples(directory.remembered(records[-1]))) if records else Counter()
    tests = {task: len(rows) for task, rows in directory.tests().items()}
    return {"test": tests, "train": dict(memory)}


def _examples(value: Any) -> Iterator[str]:
    """The task of every example in a method's memory, as `Example.to_json` writes them."""
    if isinstance(value, dict) and {"task", "text"} <= value.keys():
        task = value["task"]
        yield task["name"] if isinstance(task, dict) else str(task)
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _examples(inner)


def _stage(
    directory: ModelDirectory, records: Sequence[StageRecord], record: StageRecord
) -> dict[str, Any]:
    folder = directory.stage_path(record)
    rows = record.budget.get("rows", {})
    return {
        "stage": record.index,
        "name": record.name,
        "when": record.finished or _written(folder / "stage.json"),
        "state": _state(records, record),
        "tasks": [
            {
                "name": task["name"],
                "data": record.fingerprints.get(task["name"]),
                "rows": rows.get(task["name"]),
                **_then_and_now(records, record, task["name"]),
            }
            for task in record.tasks
        ],
        "examples": record.examples,
        "steps": record.steps,
        "seconds": sum(record.seconds.values()),
        "bytes": size(folder),
        "update_bytes": size(folder / "update"),
    }


def _state(records: Sequence[StageRecord], record: StageRecord) -> str:
    if record.folder in taken_out(records):
        return "taken out"
    return "not accepted" if "rejected" in record.notes else "in force"


def _then_and_now(
    records: Sequence[StageRecord], record: StageRecord, task: str
) -> dict[str, float | None]:
    """The accuracy on a task right after its stage and now, and what was lost since the best."""
    then, now = record.accuracy.get(task), records[-1].accuracy.get(task)
    before = [r.accuracy.get(task) for r in records[record.index - 1 : -1]]
    best = max((value for value in before if value is not None), default=None)
    lost = None if best is None or now is None else best - now
    return {"then": then, "now": now, "forgotten": lost}


def _only_tested(
    zero: StageRecord, records: Sequence[StageRecord], task: str
) -> dict[str, str | float | None]:
    last = records[-1] if records else zero
    return {"name": task, "before": zero.accuracy.get(task), "now": last.accuracy.get(task)}


def _written(path: Path) -> str:
    """When a file was written, for records that do not say when their stage was."""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
