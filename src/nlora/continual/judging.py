"""A trained stage before the guard: it may stand, or it is kept aside."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from nlora import processes
from nlora.continual.commit import filled
from nlora.continual.guard import Answers, Guard, SetAside, advice, verdict
from nlora.continual.repair import ENOUGH, WHOLE, Repair, Scaling, in_words, repair, why_not
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
    """The stage as it may stand, its update scaled back where the guard says so.

    Raises SetAside where it costs too much. It is then the directory's pending stage, and the model
    is as it was before.
    """
    record, name = learned.record, stage.tasks[0].name
    before = answers_before(model.directory, learned.answers)
    found = verdict(before, learned.answers, tested, guard.bound)
    record.notes["guard"] = found.to_json()
    if not found.too_far:
        return learned
    found.advice = advice(model.plan, stage.index, name, found)
    told: dict[str, Any] = found.to_json()
    record.notes["guard"] = told
    trained = filled(model, record, learned.answers, stage.tasks, learned.losses)
    told["own"] = _own(record, name)
    versions = {TRAINED: Version(record, trained)}
    reason = "it was not asked for" if guard.repair == "off" else why_not(model, name, found)
    if reason is not None:
        told["repair"] = {"not": reason}
    else:
        started = time.perf_counter()
        scaling = Scaling(model.adapter)  # type: ignore[arg-type]
        tried = repair(model, scaling, stage, tested, before, (learned.answers, found))
        told["repair"] = tried.to_json()
        record.seconds["repair"] = time.perf_counter() - started
        versions[TRAINED] = Version(record, scaling.at(WHOLE, trained))
        if (best := tried.best) is not None:
            mended = _mended(model, learned, tried)
            if guard.repair == "auto" and tried.kept >= ENOUGH:
                scaling.put(best.scales)
                model.records[-1] = mended.record
                model.progress.message(
                    f"'{record.name}' would have cost too much: its update is scaled back to "
                    f"{in_words(best.scales)}, and keeps {tried.kept:.0%} of what it gained"
                )
                return mended
            fill = filled(model, mended.record, mended.answers, stage.tasks, learned.losses)
            versions[REPAIRED] = Version(mended.record, scaling.at(best.scales, fill))
    processes.on_main(lambda: model.directory.pending.keep(versions))
    processes.on_main(model.directory.drop_checkpoints)
    model.restore()
    raise SetAside(model.directory.path, record.name, told)


def _own(record: StageRecord, name: str) -> dict[str, float]:
    """What a stage reaches on the tests that it brought, and how many these are."""
    part = record.parts.get(name, {}).get(record.folder)
    if part is not None:
        return {"tests": part.rows, "accuracy": part.accuracy}
    return {"tests": record.tested[name], "accuracy": record.accuracy[name]}


def _mended(model: ContinualModel, learned: Learned, tried: Repair) -> Learned:
    """The stage at the best scale."""
    best = tried.best
    assert best is not None
    record, answers = learned.record.model_copy(deep=True), tried.answers[best.scales]
    record.accuracy = model.measured(answers)
    record.notes["guard"] = best.verdict.to_json() | {"repair": tried.to_json()}
    record.notes["scaled"] = list(best.scales)
    return Learned(record, answers, learned.losses)


def answers_before(directory: ModelDirectory, now: Answers) -> Answers:
    """What the model answered before the stage, to those of the same tests that it was asked."""
    zero, records = directory.zero_shot(), directory.stages()
    shelf = directory.shelf(WATCHED)
    known: dict[str, list[dict[str, Any]]] = {}
    if zero is not None:
        known |= {task["name"]: directory.predictions(zero)[task["name"]] for task in zero.tasks}
    for record in shelf.stages():
        known |= shelf.predictions(record)
    if records:
        learned = {task["name"] for record in records for task in record.tasks}
        last = directory.predictions(records[-1])
        known |= {task: rows for task, rows in last.items() if task in learned | known.keys()}
    return {
        task: [_then(row, answer) for row, answer in zip(known[task], answers, strict=False)]
        for task, answers in now.items()
        if task in known
    }


def _then(row: Mapping[str, Any], now: Prediction) -> Prediction:
    """An earlier answer to the same test."""
    return replace(now, text=row["text"], likely=row.get("likely"))
