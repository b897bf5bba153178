"""Whether a model directory is what it says: its files, its stages, and what it scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlora import endings
from nlora.continual.agreement import stored_plan
from nlora.continual.holding import held
from nlora.continual.results import current, results_of
from nlora.continual.tasks import answerable_tasks, only_tested
from nlora.data.comparing import punctuated, to_tell_apart
from nlora.data.task import TaskData
from nlora.errors import Faults, NloraError, Several, first_line
from nlora.progress import Progress, shown, spoken
from nlora.store.directory import WATCHED, ModelDirectory
from nlora.store.records import StageRecord, read_record

if TYPE_CHECKING:
    from nlora.continual.model import ContinualModel

SAMPLE = 50
"""Tests of each task that are asked again, by default."""
TOLERANCE = 0.02
"""The share of answers that may be right once and wrong now: another machine rounds otherwise."""


@endings.together()
def verify(
    model_dir: Path, sample: int = SAMPLE, progress: Progress | None = None
) -> dict[str, Any]:
    """What was found in order: files by hash, stages that load, and answers that are as recorded.

    Files are compared with their hashes, those of tasks that are only tested and those that were
    set aside or are held too; each stage in force is loaded; after the last one `sample` tests of
    each task are asked again (0: none, and no model is loaded).
    Nothing is written. Raises NloraError with all that is wrong.
    """
    directory, progress = ModelDirectory(model_dir), spoken(progress)
    directory.index.forget()
    answerable_tasks(directory)
    faults = Faults()
    records = directory.stages()
    files = _check_files(directory, records, faults)
    found: dict[str, Any] = {"path": str(model_dir), "files": files, "stages": len(records)}
    found["held"] = held(directory) if not faults.found else None
    if faults.found or not sample:  # what is damaged is not worth loading
        faults.check()
        return found | {"tasks": []}
    plan = stored_plan(directory)
    known = [*plan.stream, *only_tested(directory)]
    from nlora.continual.building import load_base  # slow, and not for what is refused
    from nlora.continual.model import ContinualModel

    progress.message(f"loading {plan.config.model}")
    plan, backbone = load_base(plan.with_stream(known), directory, fp32=False)
    model = ContinualModel(plan, directory, backbone, progress)
    with shown(progress, "stages", len(records)):
        for record in records:
            _attempt(faults, record.folder, lambda r=record: model.restore(r.index))
            progress.advance()
    faults.check()
    found["tasks"] = _asked_again(model, [data for data in known if data.test], sample)
    for task in found["tasks"]:
        if task["turned"] > max(1, TOLERANCE * task["asked"]):
            faults.found.append(
                f"{task['task']}: of {task['asked']} tests that were asked again {task['turned']} "
                "are right where they were wrong, or wrong where they were right"
            )
    faults.check()
    return found


def _check_files(directory: ModelDirectory, records: Sequence[StageRecord], faults: Faults) -> int:
    """How many files were compared with their hashes."""
    zero = directory.zero_shot()
    places = [(directory.stage_path(r), r) for r in [*([zero] if zero else []), *records]]
    for one in directory.undone.rollbacks():
        for name in one.stages:
            path = one.path / name
            record = faults.attempt(lambda path=path: read_record(path / "stage.json"))
            places += [(path, record)] if record is not None else []
    places += faults.attempt(directory.pending.stages) or []
    watched = directory.shelf(WATCHED)
    places += [(watched.stage_path(r), r) for r in faults.attempt(watched.stages) or ()]
    for path, record in places:
        for name in record.files:
            faults.attempt(lambda p=path, r=record, n=name: directory.check_file(p, r, n))
        more = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}
        for name in sorted(more - {"stage.json", *record.files}):
            faults.found.append(f"{path / name} is no file of the stage")
    _check_results(directory, records, zero, faults)
    return sum(len(record.files) for _, record in places)


def _check_results(
    directory: ModelDirectory,
    records: Sequence[StageRecord],
    zero: StageRecord | None,
    faults: Faults,
) -> None:
    """Whether `results.json` is what the stages say; an earlier version may have said less.

    One that is behind the stages is no fault: the next command that changes the model writes it.
    """
    there = faults.attempt(lambda: current(directory))
    if there is None:
        return
    try:
        wanted = results_of(
            *(records, zero, directory.watched()), there["tasks"], directory.config()["method"]
        )
        same = all(there[name] == wanted[name] for name in wanted.keys() & there.keys())
    except (KeyError, ValueError, TypeError):  # of other tasks
        same = False
    if not same:
        faults.found.append(
            f"{directory.path / 'results.json'} is not what the stages say; `nlora run` or `learn` "
            "with what was learned last writes it anew"
        )


def _attempt(faults: Faults, what: str, call: Callable[[], object]) -> None:
    """Do it; whatever it raises is a fault."""
    try:
        call()
    except Several as error:
        faults.found += error.faults
    except NloraError as error:
        faults.found.append(str(error))
    except Exception as error:  # whatever reading somebody's tensors may raise
        faults.found.append(f"stage {what} cannot be loaded: {first_line(error)}")


def _asked_again(
    model: ContinualModel, tasks: Sequence[TaskData], count: int
) -> list[dict[str, Any]]:
    """Some of each task's tests, evenly chosen: how many, and how many answers changed."""
    last = model.records[-1]
    recorded, chosen = model.directory.predictions(last), {}
    for data in tasks:
        size = min(len(recorded.get(data.name, ())), len(data.test))
        asked = min(count, size)
        chosen[data.name] = [i * size // asked for i in range(asked)]
    parts = [replace(d, test=tuple(d.test[i] for i in chosen[d.name])) for d in tasks]
    answers, found = model.evaluate([part for part in parts if part.test]), []
    for data in tasks:
        # As in the tests of all examples, which say whether punctuation counts.
        counts = punctuated(to_tell_apart(data.task, data.test))
        now = [replace(p, punctuated=counts) for p in answers.get(data.name, ())]
        then = [recorded[data.name][i] for i in chosen[data.name]]
        pairs = list(zip(now, then, strict=True))
        found.append(
            {
                "task": data.name,
                "asked": len(pairs),
                "same": sum(p.text == row["text"] for p, row in pairs),
                "turned": sum(p.correct != row["correct"] for p, row in pairs),
                "recorded": last.accuracy.get(data.name),
            }
        )
    return found
