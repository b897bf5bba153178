"""A stage from its training to its commit, and tests that are committed without any training."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from nlora import processes
from nlora.continual.agreement import numbers_of
from nlora.continual.commit import commit, record_of
from nlora.continual.guard import Answers, Guard, at_chance
from nlora.continual.judging import Learned, judge
from nlora.continual.movement import moved
from nlora.continual.results import told
from nlora.data.task import TaskData
from nlora.methods.context import Stage
from nlora.plan.budgets import budget
from nlora.store.directory import WATCHED, StageRecord, stage_folder
from nlora.store.manifests import Manifest, Manifests

if TYPE_CHECKING:
    from nlora.continual.model import ContinualModel


def learn_stage(
    model: ContinualModel,
    stage: Stage,
    tested: Sequence[TaskData],
    guard: Guard | None = None,
) -> StageRecord:
    """Train a stage, test `tested`, and commit it, if the method accepts what it has become.

    Raises SetAside where it costs more than the guard allows: it is trained then, and kept
    beside the stages.
    """
    from nlora.training.loop import train

    started = time.perf_counter()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    before = dict(model.records[-1].accuracy) if model.records else {}
    begins = model.begin_after(stage)
    ctx = model.context(stage)
    trained = train(
        model.method,
        ctx,
        model.plan.run,
        model.mixed,
        model.directory.path / "logs",
        model.directory.checkpoints(stage_folder(stage.index, stage.name)),
        numbers_of(model.plan, model.records),
    )
    done = time.perf_counter()
    record = record_of(
        stage,
        budget=budget(model.plan, stage),
        examples=trained.examples,
        steps=trained.steps,
        trainable_parameters=trained.trainable,
        notes=trained.notes,
    )
    record.manifest = Manifest(on=begins and begins.folder, adds=[record.folder])
    if begins is not None and model.adapter.replaces:
        record.manifest.without = Manifests(model.records).after(begins.index)[-1:]
    if begins is not None and begins.index != stage.index - 1:
        record.notes["on_top_of"] = begins.folder
    model.stand_after(record)
    record.seconds = {"training": trained.earlier_seconds + done - started}
    if model.plan.run.measure_kl or guard is not None:
        record.kl = moved(model, stage.index, _watched_moves(model, stage, tested))
        measured = time.perf_counter()
        record.seconds["kl"], done = measured - done, measured
    answers = model.evaluate(tested)
    record.accuracy = model.measured(answers)
    model.routing.tell(record)
    accepted = model.method.accept(ctx, before, record.accuracy)
    if not accepted:
        answers = _reject(model, record, tested)
    record.seconds["evaluation"] = time.perf_counter() - done
    learned = Learned(record, answers, trained.losses)
    if accepted and guard is not None:
        learned = judge(model, guard, stage, learned, tested)
    commit(model, learned.record, learned.answers, stage.tasks, learned.losses)
    processes.on_main(model.directory.drop_checkpoints)
    if model.plan.run.report_to != "none":
        trained.tell(told(model.directory, model.plan.config.method))
    if not accepted:
        model.restore()
    return learned.record


def _watched_moves(
    model: ContinualModel, stage: Stage, tested: Sequence[TaskData]
) -> list[TaskData]:
    """The tasks on which it is measured how far the stage moved the model: the new ones and those
    that are only tested; with `measure_kl` those that were learned before, too."""
    new = {data.name for data in stage.tasks}
    return [
        data
        for data in tested
        if data.only_tested
        or data.name in new
        or (model.plan.run.measure_kl and model.stage_of(data.name) is not None)
    ]


def _reject(model: ContinualModel, record: StageRecord, tested: Sequence[TaskData]) -> Answers:
    """Let the record and the method's state be what they were before; that model's answers.

    The update stays in the stage's folder, and no manifest names it.
    """
    before = model.records[:-1]
    moved_by = {"kl": record.kl} if record.kl else {}
    record.notes["rejected"] = {"accuracy": record.accuracy, **moved_by}
    record.kl = {}
    record.manifest = Manifest(on=before[-1].folder if before else None)
    model.method.state = model.state_after(before)
    earlier = Manifests(before).after(len(before))
    with model.adapter.after([model.directory.update_path(name) for name in earlier]):
        answers = model.evaluate(tested)
    record.accuracy = model.measured(answers)
    return answers


def test_first(model: ContinualModel, tasks: Sequence[TaskData]) -> None:
    """Test tasks before any training, and commit that."""
    started = time.perf_counter()
    answers = model.evaluate(tasks)
    record = StageRecord(index=0, name="zero-shot", seed=model.plan.config.seed)
    kept = [data for data in model.stream if data.only_tested]
    record.tasks = [data.task.to_json() for data in kept]
    record.accuracy = model.measured(answers)
    record.seconds = {"evaluation": time.perf_counter() - started}
    commit(model, record, answers, kept)


def watch(model: ContinualModel, data: TaskData) -> None:
    """Test a task that will only be tested, and keep it with the model."""
    started = time.perf_counter()
    answers = model.evaluate([data])
    index = len(model.directory.watched()) + 1
    record = StageRecord(index=index, name=data.name, seed=model.plan.config.seed)
    record.tasks, record.fingerprints = [data.task.to_json()], {data.name: data.fingerprint()}
    record.notes["after"] = model.records[-1].folder if model.records else None
    record.accuracy = model.measured(answers)
    if not record.accuracy[data.name]:
        model.progress.message(f"'{data.name}' is watched at 0 %: it can lose nothing")
    elif line := at_chance(data, record.accuracy[data.name]):
        model.progress.message(line)
    record.seconds = {"evaluation": time.perf_counter() - started}
    commit(model, record, answers, [data], directory=model.directory.shelf(WATCHED))
