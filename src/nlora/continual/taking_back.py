"""Stages taken back: set aside, brought back, or removed for good."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nlora.checksum import sha256
from nlora.continual.agreement import FREE
from nlora.continual.history import size
from nlora.continual.holding import held
from nlora.continual.results import columns, results_of
from nlora.continual.tasks import stage_number
from nlora.data.task import digest
from nlora.errors import NloraError
from nlora.plan.config import told as with_effect
from nlora.progress import NoProgress, Progress
from nlora.store.directory import ModelDirectory, StageRecord
from nlora.store.records import now, read_record
from nlora.store.undone import Rollback

CONFIG = "model.json"
_DECIDES = (
    *("method", "seed", "from_adapter", "knows"),
    *("stream", "evaluate", "max_train", "max_eval"),
)
"""What of it says how a first stage is trained, and what follows it in a run."""


class TakenBack(NamedTuple):
    """Stages that were set aside or brought back, and the last one that is in force now."""

    stages: list[str]
    """Their names; none where there was nothing to do."""
    place: Path | None
    last: int
    name: str | None
    """Of the last one; None for the base model."""


def rollback(model_dir: Path, to: str | None = None, progress: Progress | None = None) -> TakenBack:
    """Set the stages after `to` aside (a number or name; by default the last one alone).

    Where a stage is held, `progress` is told that it no longer fits.
    Raises NloraError where there is no such stage.
    """
    directory = _there(model_dir)
    with directory.locked():
        directory.check_writable()
        records, zero = directory.stages(), directory.zero_shot()
        if to is None and not records:
            raise NloraError(f"{model_dir} has no stage to take back")
        last = len(records) - 1 if to is None else stage_number(records, to)
        left, gone = records[:last], records[last:]
        if not gone:
            return _told([], None, left)
        tasks = columns(directory, left, zero)
        results = results_of(left, zero, directory.watched(), tasks, directory.config()["method"])
        names = [record.folder for record in gone]
        one = directory.undone.take_back(names, _built_on(directory, left), now(), results)
        if folder := held(directory):
            (progress or NoProgress()).message(
                f"{folder} is held, and was trained on top of what is set aside now: it can be "
                f"accepted only after `nlora rollback {model_dir} --undo`"
            )
        return _told(gone, one.path, left)


def bring_back(model_dir: Path, number: int | None = None) -> TakenBack:
    """Let stages that were set aside be stages again: those of the rollback of this number.

    By default of the newest that fits to what the model is now. Raises NloraError where none does.
    """
    directory = _there(model_dir)
    with directory.locked():
        directory.check_writable()
        records, zero = directory.stages(), directory.zero_shot()
        one = _fitting(directory, records, number)
        back = [read_record(one.path / name / "stage.json") for name in one.stages]
        whole = [*records, *back]
        tasks = columns(directory, whole, zero)
        results = results_of(whole, zero, directory.watched(), tasks, directory.config()["method"])
        directory.undone.bring_back(one, results)
        return _told(back, None, whole)


def _fitting(
    directory: ModelDirectory, records: Sequence[StageRecord], number: int | None
) -> Rollback:
    """The rollback that is asked for, whose stages were built on what the model is now."""
    known = directory.undone.rollbacks()
    asked = [one for one in known if number in (None, int(one.path.name))]
    if not asked:
        there = ", ".join(f"{int(one.path.name)} ({', '.join(one.stages)})" for one in known)
        which = f"; there are {there}" if known else ""
        aside = "no stages set aside" if number is None else f"no rollback {number}"
        raise NloraError(f"{directory.path} has {aside}{which}")
    fits = [one for one in asked if _stood_on(directory, records, one)]
    if not fits:
        one = asked[-1]
        raise NloraError(
            f"{one.path} holds {', '.join(one.stages)}, which were built on another model than "
            f"this is now{_first(directory, records, one)}"
        )
    return fits[-1]


def _first(directory: ModelDirectory, records: Sequence[StageRecord], one: Rollback) -> str:
    """What to do so that a rollback can be undone, where that is known."""
    before = int(one.stages[0].split("-")[0]) - 1
    if before > len(records):
        how = f"bring back stage {before} first (`nlora rollback --undo`)"
    elif _stood_on(directory, records[:before], one):
        how = f"set aside what came after stage {before} first (`nlora rollback --to {before}`)"
    else:
        return ""
    return f": {how}, then `nlora rollback --undo --number {int(one.path.name)}`"


def prune(model_dir: Path) -> dict[str, Any]:
    """Remove all stages that were set aside, for good; which ones, and the bytes that are free."""
    directory = _there(model_dir)
    with directory.locked():
        directory.check_writable()
        found = _aside(directory)
        directory.undone.prune()
        return found


def prunable(model_dir: Path) -> dict[str, Any]:
    """What `prune` would remove, as it says it."""
    return _aside(_there(model_dir))


def _aside(directory: ModelDirectory) -> dict[str, Any]:
    stages = [name for one in directory.undone.rollbacks() for name in one.stages]
    freed = size(directory.undone.folder) if stages else 0
    return {"path": str(directory.path), "removed": stages, "bytes": freed}


def _there(model_dir: Path) -> ModelDirectory:
    directory = ModelDirectory(model_dir)
    directory.check_there()
    return directory


def _told(
    stages: Sequence[StageRecord], place: Path | None, there: Sequence[StageRecord]
) -> TakenBack:
    names = [record.name for record in stages]
    return TakenBack(names, place, len(there), there[-1].name if there else None)


def _stood_on(directory: ModelDirectory, records: Sequence[StageRecord], one: Rollback) -> bool:
    """Whether stages that were set aside were built on these."""
    if one.on == _built_on(directory, records):
        return True
    # The first ones were recorded with the hash of the whole file.
    return not records and one.on == {CONFIG: sha256(directory.path / CONFIG)}


def _built_on(directory: ModelDirectory, records: Sequence[StageRecord]) -> dict[str, str]:
    """The SHA-256 of each stage's record; without a stage, of what the first is trained by."""
    paths = [directory.stage_path(record) / "stage.json" for record in records]
    if paths:
        return {path.relative_to(directory.path).as_posix(): sha256(path) for path in paths}
    config = directory.config()
    settings = {k: v for k, v in with_effect(config["settings"]).items() if k not in FREE}
    base = config.get("base") or {}
    weights = base.get("revision") or config["model"]
    return {CONFIG: digest([settings, weights, *(config.get(name) for name in _DECIDES)])}
