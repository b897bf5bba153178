"""An update that was trained in a script of one's own, as a stage of a model directory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlora import processes
from nlora.adapters.given import given_name
from nlora.backbones.stored import changed
from nlora.checksum import sha256
from nlora.continual.added import asked, grown
from nlora.continual.agreement import agreed, begun, check_base, document, names
from nlora.continual.building import check_metrics, check_tasks
from nlora.continual.commit import commit, record_of
from nlora.continual.guard import Guard
from nlora.continual.judging import Learned, judge
from nlora.continual.model import ContinualModel
from nlora.continual.results import write_results
from nlora.continual.taking_over import origin
from nlora.continual.tasks import BROUGHT, aligned, as_tasks, learned_stages, only_tested
from nlora.errors import NloraError, option
from nlora.methods.context import Stage
from nlora.plan.config import RunConfig, stored_config
from nlora.plan.resolve import Choice, Plan, resolve
from nlora.progress import Progress, spoken
from nlora.store.directory import ModelDirectory, StageRecord
from nlora.store.manifests import Manifest
from nlora.training.loop import take_examples

if TYPE_CHECKING:
    from nlora.adapters.lora import Lora
    from nlora.continual.earlier import Earlier
    from nlora.data.task import TaskData
    from nlora.lowrank.factors import Factors


@dataclass(frozen=True)
class Brought:
    """A trained update, and what it was trained on top of."""

    base: Any
    """The Transformers model that the adapter is in."""
    adapter: Lora
    earlier: Earlier
    choice: Choice
    training: Mapping[str, Any]
    """What the record is told of the training."""
    losses: Sequence[Mapping[str, float]]


def bring(
    brought: Brought,
    out: Path,
    task: TaskData | None,
    name: str | None,
    guard: Guard | None,
    tokenizer: Any,
    progress: Progress | None,
) -> dict[str, Any]:
    """Commit the update as the next stage of a directory; the results.

    Raises NloraError where it was trained on top of something else, SetAside as `judge` does.
    """
    import torch
    from accelerate.utils import extract_model_from_parallel

    progress = spoken(progress)
    directory = ModelDirectory(out)
    if guard is not None and task is None:
        raise NloraError(
            f"{option('max_forgetting')} weighs what earlier tasks lose against what a new one "
            "gains: give its task"
        )
    if not all(bool(torch.isfinite(tensor).all()) for tensor in brought.adapter.update().values()):
        raise NloraError("the update holds NaN or infinite numbers: its training has diverged")
    extract_model_from_parallel(brought.adapter.model, keep_fp32_wrapper=False)  # no autocast
    with processes.main_holds(directory.locked):
        _check_place(brought.earlier, directory)
        directory.pending.check_none()
        plan = _plan(brought, directory, task, progress)
        _check_weights(brought, plan)
        directory.check_writable()
        if not begun(directory):
            processes.on_main(lambda: directory.write_config(document(plan)))
        model = _model(plan, directory, brought, tokenizer, progress)
        if brought.earlier.directory is None:
            _bring_earlier(model, brought.earlier)
        stage = _stage(plan, model.records, task, name)
        coming = list(stage.tasks)
        check_metrics(plan, progress.message)
        check_tasks(plan, model.backbone, model.encoder, coming, progress.message)
        tested = as_tasks([*learned_stages(directory), *coming])
        _bring(model, brought, stage, [*tested, *only_tested(directory)], guard)
        return write_results(directory, names(plan), plan.config.method)


def _check_place(earlier: Earlier, directory: ModelDirectory) -> None:
    """Raise NloraError unless what is there is what the update was trained on top of."""
    done = directory.stages() if directory.exists() else []
    if earlier.directory is None:
        told = [record.notes.get("from_adapter", {}).get("sha256") for record in done]
        same = told == [sha256(found.adapter.path) for found in earlier.adapters][: len(told)]
    elif directory.path.resolve() == earlier.directory.path.resolve():
        same = _contents(done) == _contents(earlier.records)
    else:
        raise NloraError(
            f"the update was trained on top of {earlier.directory.path}: commit it there (`nlora "
            "copy` makes a copy to begin with)"
        )
    if not same:
        raise NloraError(
            f"{directory.path} holds other stages than the update was trained on top of; begin "
            "with it as previous"
        )


def _contents(records: Sequence[StageRecord]) -> list[tuple[str, dict[str, str]]]:
    """The stages with the hashes of their files."""
    return [(record.folder, record.files) for record in records]


def _plan(
    brought: Brought, directory: ModelDirectory, task: TaskData | None, progress: Progress
) -> Plan:
    """The plan of a directory over its tasks and the new one."""
    model = brought.earlier.model
    if begun(directory):
        config = stored_config(directory).model_copy(update={"model": model})
    else:
        settings = brought.choice.settings()
        config = RunConfig(model=model, method=brought.choice.method.name, settings=settings)
    if task is None:
        known = [*learned_stages(directory), *only_tested(directory)]
        plan = resolve(config, known, whole=False)
        plan.check_metrics()
        if begun(directory):
            check_base(plan, directory)
        return plan
    added = grown(asked(directory, task, config), task, directory, progress)
    if added.learned:
        raise NloraError(f"{directory.path} has learned '{task.name}' from this data already")
    return agreed(added.plan, directory, extend=True)


def _check_weights(brought: Brought, plan: Plan) -> None:
    """Raise NloraError for base weights that nobody who loads the directory would get."""
    if (name := changed(brought.base, plan.base)) is not None:
        raise NloraError(
            f"the model is not what is stored in {plan.base.target} ({name} differs), and "
            "everything else loads that: save the model with its tokenizer to a folder, and train "
            "on what is loaded from there"
        )


def _model(
    plan: Plan, directory: ModelDirectory, brought: Brought, tokenizer: Any, progress: Progress
) -> ContinualModel:
    from transformers import AutoTokenizer

    from nlora.backbones.load import Backbone

    base = plan.base
    if tokenizer is None:
        tokenizer = AutoTokenizer.from_pretrained(base.target, revision=base.pinned)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    backbone = Backbone(base.name, base.title, base.revision, brought.base, tokenizer)
    model = ContinualModel(plan, directory, backbone, progress, brought.adapter)
    model.method.state = model.state_after(model.records)
    return model


def _bring_earlier(model: ContinualModel, earlier: Earlier) -> None:
    """The adapters of others as stages without a task, those that are not there yet."""
    adapter = model.adapter
    for number, found in enumerate(earlier.adapters, start=1):
        if number <= len(model.records):
            continue
        source = earlier.sources[number - 1]
        stage = Stage(number, given_name(source), (), seed=model.plan.config.seed)
        record = record_of(stage, notes={BROUGHT: {}, "from_adapter": origin(found, source)})
        on = model.records[-1].folder if model.records else None
        record.manifest = Manifest(on=on, adds=[record.folder])
        with _in_hand(adapter, found.factors(adapter.factors())):  # type: ignore[attr-defined,arg-type]
            commit(model, record, {}, (), [])
        model.records.append(record)


@contextmanager
def _in_hand(adapter: Lora, update: Mapping[str, Factors]) -> Iterator[None]:
    """Another update in hand for a while, to be saved."""
    own = adapter.copy()
    adapter.put(update)
    try:
        yield
    finally:
        adapter.put(own)


def _stage(
    plan: Plan, done: Sequence[StageRecord], task: TaskData | None, name: str | None
) -> Stage:
    """The stage that comes next."""
    index = len(done) + 1
    if task is not None:
        return aligned(plan.stages(), done)[index - 1]
    return Stage(index, name or f"update-{index}", (), seed=plan.config.seed)


def _bring(
    model: ContinualModel,
    brought: Brought,
    stage: Stage,
    tested: Sequence[TaskData],
    guard: Guard | None,
) -> None:
    """Test and commit the update in hand."""
    started = time.perf_counter()
    adapter, method = brought.adapter, model.method
    adapter.consolidate()
    ctx = model.context(stage)
    noted = {BROUGHT: dict(brought.training), **adapter.notes()}
    if stage.tasks and stage.tasks[0].train:
        take_examples(method, ctx, model.plan.run)
        method.end(ctx)
        method.keep(ctx)
        noted |= method.notes(ctx)
    elif method.routes_by_input:
        raise NloraError(
            f"{model.directory.path} routes by the input, and its router learns from training "
            "texts: give a task with its training examples"
        )
    if adapter.targets is not None:
        noted["adapted"] = asdict(adapter.targets)
    record = record_of(
        stage,
        budget={"rows": {data.name: data.used() for data in stage.tasks}},
        examples=sum(len(data.train) for data in stage.tasks),
        steps=len(brought.losses),
        trainable_parameters=sum(p.numel() for p in adapter.trainable()),
        notes=noted,
    )
    on = model.records[-1].folder if model.records else None
    record.manifest = Manifest(on=on, adds=[record.folder])
    model.stand_after(record)
    answers = model.evaluate([data for data in tested if data.test])
    record.accuracy = model.measured(answers)
    model.routing.tell(record)
    record.seconds = {"evaluation": time.perf_counter() - started}
    learned = Learned(record, answers, brought.losses)
    if guard is not None:
        learned = judge(model, guard, stage, learned, tested)
    commit(model, learned.record, learned.answers, stage.tasks, learned.losses)
