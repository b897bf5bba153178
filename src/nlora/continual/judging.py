"""A trained stage before the guard: it may stand, or it is kept aside."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nlora import processes
from nlora.continual.commit import filled
from nlora.continual.guard import Answers, Guard, SetAside, advice, verdict
from nlora.continual.holding import repair_of
from nlora.continual.movement import moved
from nlora.continual.repair import ENOUGH, Repair, Scaling, Try, repair
from nlora.evaluation.answers import Prediction
from nlora.store.directory import WATCHED, ModelDirectory, StageRecord
from nlora.store.pending import REPAIRED, TRAINED, Version

if TYPE_CHECKING:
    from nlora.continual.model import ContinualModel
    from nlora.data.task import TaskData
    from nlora.methods.context import Stage


class Learned(NamedTuple):
    """A stage that is trained and tested."""

    record: StageRecord
    answers: Answers
    losses: Sequence[Mapping[str, float]]


def judge(
    model: ContinualModel, guard: Guard, stage: Stage, learned: Learned, tested: Sequence[TaskData]
) -> Learned:
    """The stage as it may stand, repaired where the guard says so.

    Raises SetAside where it costs too much. It is then the directory's pending stage, and the model
    is as it was before.
    """
    record, name = learned.record, stage.tasks[0].name
    before = answers_before(model.directory, learned.answers)
    unknown = [data for data in tested if data.only_tested and data.name not in before]
    if unknown:  # they were added after stages that were taken back
        with model.standing(len(model.records) - 1):
            before = {**before, **model.evaluate(unknown)}
    found = verdict(before, learned.answers, tested, guard.bound)
    record.notes["guard"] = found.to_json()
    if not found.too_far:
        for line in found.untold():
            model.progress.message(line)
        return learned
    found.advice = advice(model.plan, stage.index, name, found)
    told: dict[str, Any] = found.to_json()
    record.notes["guard"] = told
    trained = filled(model, record, learned.answers, stage.tasks, learned.losses)
    told["own"] = _own(record, name)
    versions = {TRAINED: Version(record, trained)}
    if guard.repair == "off":
        told["repair"] = {"not": "it was not asked for"}
    else:
        started = time.perf_counter()
        tried = repair(model, stage, tested, before, (learned.answers, found))
        told["repair"] = tried.to_json()
        record.seconds["repair"] = time.perf_counter() - started
        if (best := tried.best) is not None:
            mended = _mended(model, stage, learned, tried, tested)
            put = _putting(model, best)
            if guard.repair == "auto" and tried.kept >= ENOUGH and best.verdict.within:
                put()
                model.records[-1] = mended.record
                model.progress.message(
                    f"'{record.name}' would have cost too much: {repair_of(mended.record)}, and it "
                    f"keeps {tried.kept:.0%} of what it gained"
                )
                return mended
            fill = filled(model, mended.record, mended.answers, stage.tasks, learned.losses)
            versions[REPAIRED] = Version(mended.record, _after(put, fill))
    processes.on_main(lambda: model.directory.pending.keep(versions))
    processes.on_main(model.directory.drop_checkpoints)
    model.restore()
    raise SetAside(model.directory.path, record.name, told)


def _putting(model: ContinualModel, best: Try) -> Callable[[], None]:
    """What puts the update into the model as a repair has it."""
    if best.matched:
        return lambda: None  # it is whole
    scaling = Scaling(model.adapter)  # type: ignore[arg-type]
    return lambda: scaling.put(best.scales)


def _after(put: Callable[[], None], write: Callable[[Path], None]) -> Callable[[Path], None]:
    """What writes a stage once its update is put."""

    def written(folder: Path) -> None:
        put()
        write(folder)

    return written


def _own(record: StageRecord, name: str) -> dict[str, float]:
    """What a stage reaches on the tests that it brought, and how many these are."""
    part = record.parts.get(name, {}).get(record.folder)
    if part is not None:
        return {"tests": part.rows, "accuracy": part.accuracy}
    return {"tests": record.tested[name], "accuracy": record.accuracy[name]}


def _mended(
    model: ContinualModel,
    stage: Stage,
    learned: Learned,
    tried: Repair,
    tested: Sequence[TaskData],
) -> Learned:
    """The stage with the best repair."""
    best = tried.best
    assert best is not None
    record = learned.record.model_copy(deep=True)
    answers = tried.answers[tried.curve.index(best)]
    record.accuracy = model.measured(answers)
    record.notes["guard"] = best.verdict.to_json() | {"repair": tried.to_json()}
    if best.matched:
        record.matched = tried.offsets
    else:
        record.notes["scaled"] = list(best.scales)
        started, asked = time.perf_counter(), [data for data in tested if data.name in record.kl]
        if asked:  # that of the whole update is another
            with Scaling(model.adapter).at(best.scales):  # type: ignore[arg-type]
                record.kl = moved(model, stage.index, asked)
            record.seconds["kl"] += time.perf_counter() - started
    return Learned(record, answers, learned.losses)


def answers_before(directory: ModelDirectory, now: Answers) -> Answers:
    """What the model answered before the stage, to those of the same tests that it was asked.

    A watched task that was added after stages which were taken back since is not among them.
    """
    zero, records = directory.zero_shot(), directory.stages()
    shelf = directory.shelf(WATCHED)
    known: dict[str, list[dict[str, Any]]] = {}
    if zero is not None:
        known |= {task["name"]: directory.predictions(zero)[task["name"]] for task in zero.tasks}
    last = records[-1].folder if records else None
    for record in shelf.stages():
        if record.notes.get("after") == last:
            known |= shelf.predictions(record)
    if records:
        tasks = [task["name"] for record in [*records, *shelf.stages()] for task in record.tasks]
        then = directory.predictions(records[-1])
        known |= {task: rows for task, rows in then.items() if task in {*tasks, *known}}
    return {
        task: [_then(row, answer) for row, answer in zip(known[task], answers, strict=False)]
        for task, answers in now.items()
        if task in known
    }


def _then(row: Mapping[str, Any], now: Prediction) -> Prediction:
    """An earlier answer to the same test."""
    return replace(now, text=row["text"], likely=row.get("likely"))
