"""A task's update taken out of the model, and the rest measured.

It is a stage of its own: a record without an update, whose manifest leaves the task's updates out.
So it can be taken back like any other, and all that came before stays as it was recorded.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nlora import endings, processes
from nlora.continual.agreement import stored_plan
from nlora.continual.holding import held
from nlora.continual.results import columns, write_results
from nlora.continual.tasks import learned_stages, only_tested
from nlora.errors import NloraError, unknown
from nlora.progress import Progress, spoken
from nlora.store.directory import ModelDirectory
from nlora.store.manifests import Manifest, Manifests
from nlora.store.records import StageRecord, taken_out

if TYPE_CHECKING:
    from nlora.data.task import TaskData
    from nlora.plan.resolve import Plan


class TakenOut(NamedTuple):
    """What it does to the model to be without a task."""

    task: str
    rows: list[dict[str, Any]]
    """Of every other task: accuracy with the task's update and `without` it, and whether it was
    learned `on_top` of it."""
    stage: int | None
    """The stage that it is; None where nothing was written."""


@endings.together()
def take_out(
    model_dir: Path, task: str, dry: bool = False, progress: Progress | None = None
) -> TakenOut:
    """Take what a task has added out of the model, and test all others. With `dry` only measure.

    What is out already stays so. Raises NloraError, with the reason, where the task's update cannot
    be told apart from those of others.
    """
    directory, progress = ModelDirectory(model_dir), spoken(progress)
    directory.check_there()  # or the lock would make it
    with processes.main_holds(directory.locked):
        plan = stored_plan(directory)
        plan.check_metrics()
        records = directory.stages()
        if task not in [data.name for data in plan.stream]:
            return _out_already(directory, plan, records, task, progress)
        gone = _own_updates(directory, plan, records, task)
        if not dry:
            directory.check_writable()
        others = only_tested(directory)
        tested = [*(data for data in plan.stream if data.name != task), *others]
        plan = plan.with_stream([*learned_stages(directory), *others])  # what each brought is told
        record = _measure(plan, directory, task, gone, tested, dry, progress)
        rows = _rows(records, record, tested, gone)
        if not dry:
            _write_results(directory, plan.config.method)
            if folder := held(directory):
                progress.message(
                    f"{folder} is held, and was trained with '{task}' in the model: it can be "
                    f"accepted only after `nlora rollback {model_dir}`"
                )
        return TakenOut(task, rows, None if dry else record.index)


def _measure(
    plan: Plan,
    directory: ModelDirectory,
    task: str,
    gone: Sequence[str],
    tested: Sequence[TaskData],
    dry: bool,
    progress: Progress,
) -> StageRecord:
    """The record of the model without these updates; it is committed, but for a dry run."""
    from nlora.continual.commit import commit
    from nlora.continual.model import ContinualModel  # slow, and not for what is refused

    model = ContinualModel.begin(plan, directory, progress)
    for record in [r for r in model.records if r.folder in gone]:
        model.method.take_out(record.index)
    model.method.state.rehearsal.forget(task)
    last = model.records[-1]
    record = StageRecord(
        index=last.index + 1,
        name=f"without {task}",
        seed=plan.config.seed,
        manifest=Manifest(on=last.folder, without=list(gone)),
        notes={"taken_out": {"task": task, "stages": list(gone)}},
    )
    started = time.perf_counter()
    answers = model.take_up(record, tested)
    record.seconds = {"evaluation": time.perf_counter() - started}
    if not dry:
        commit(model, record, answers, [], (), update=False)
    return record


def _out_already(
    directory: ModelDirectory,
    plan: Plan,
    records: Sequence[StageRecord],
    task: str,
    progress: Progress,
) -> TakenOut:
    for record in reversed(records):
        if record.notes.get("taken_out", {}).get("task") == task:
            progress.message(f"{directory.path} is without '{task}' already, nothing to do")
            _write_results(directory, plan.config.method)
            return TakenOut(task, [], record.index)
    raise unknown("task", task, [data.name for data in plan.stream])


def _own_updates(
    directory: ModelDirectory, plan: Plan, records: Sequence[StageRecord], task: str
) -> list[str]:
    """The stages whose updates are the task's alone. Raises NloraError where there are none."""
    out = taken_out(records)
    mine = {r.folder for r in records if task in _names(r) and r.folder not in out}
    others = {name for r in records if r.folder not in out for name in _names(r)} - {task}
    why = f"'{task}' cannot be taken out"
    if not others:
        raise NloraError(
            f"{why}: nothing else was learned; `nlora rollback {directory.path} --to 0` takes all "
            "back"
        )
    names, holds = {r.folder: _names(r) for r in records}, _holds(records)
    for folder, stages in holds.items():
        within = [name for stage in sorted(stages) for name in names[stage]]
        if stages & mine and set(within) - {task}:
            raise NloraError(
                f"{why}: {plan.config.method} went on with one update, which after '{folder}' "
                f"holds {', '.join(dict.fromkeys(within))} together"
            )
    standing = {name for r in records for name in r.manifest.adds}
    if not mine & standing:
        raise NloraError(f"{why}: its update was not accepted, so it is not in the model")
    if any((directory.update_path(name) / "scales.safetensors").is_file() for name in standing):
        raise NloraError(
            f"{why}: later updates were trained with numbers that scale those before them"
        )
    return sorted(mine)


def _holds(records: Sequence[StageRecord]) -> dict[str, set[str]]:
    """By stage those whose training its update holds: its own, and of those that it went on with.

    These its manifest leaves out.
    """
    found: dict[str, set[str]] = {}
    for record in records:
        found[record.folder] = {record.folder}
        if record.folder in record.manifest.adds:
            found[record.folder].update(*(found[name] for name in record.manifest.without))
    return found


def _names(record: StageRecord) -> list[str]:
    return [task["name"] for task in record.tasks]


def _rows(
    records: Sequence[StageRecord],
    record: StageRecord,
    tested: Sequence[TaskData],
    gone: Sequence[str],
) -> list[dict[str, Any]]:
    """Each tested task with and without, and whether its model was trained on top of what goes."""
    before: Mapping[str, float] = records[-1].accuracy
    held = Manifests(records).holding(set(gone)) - set(gone)
    on_top = {name for r in records if r.folder in held for name in _names(r)}
    return [
        {
            "task": data.name,
            "with": before.get(data.name),
            "without": record.accuracy[data.name],
            "on_top": data.name in on_top,
        }
        for data in tested
    ]


def _write_results(directory: ModelDirectory, method: str) -> None:
    tasks = columns(directory, directory.stages(), directory.zero_shot())
    write_results(directory, tasks, method)
