"""`run` learns a stream; `learn` adds one task. Both write a model directory stage by stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nlora import endings, processes
from nlora.continual.added import asked, grown
from nlora.continual.agreement import agreed, begun, document, names
from nlora.continual.guard import Guard, SetAside
from nlora.continual.results import write_results
from nlora.continual.tasks import aligned, as_tasks
from nlora.data.comparing import told
from nlora.data.task import TaskData
from nlora.methods.parts.terms import never_acting
from nlora.plan.budgets import budget
from nlora.plan.config import RunConfig
from nlora.plan.resolve import Plan, resolve
from nlora.progress import Progress, spoken
from nlora.store.directory import ModelDirectory

if TYPE_CHECKING:
    from nlora.continual.model import ContinualModel
    from nlora.methods.context import Stage


class Begin(Protocol):
    """Brings the model of a plan to where the last committed stage left it."""

    def __call__(
        self, plan: Plan, directory: ModelDirectory, progress: Progress
    ) -> ContinualModel: ...


@endings.together()
def run(
    config: RunConfig,
    out: Path,
    progress: Progress | None = None,
    stream: Sequence[TaskData] | None = None,
) -> dict[str, Any]:
    """Learn a stream, going on after the last committed stage; the results.

    `stream` gives the tasks themselves instead of the name in `config`. Raises NloraError if `out`
    holds another configuration or something else.
    """
    directory = ModelDirectory(out)
    known = directory.precision() if directory.exists() else None  # before anything is downloaded
    return run_plan(resolve(config, stream, precision=known), out, progress)


def run_plan(plan: Plan, out: Path, progress: Progress | None = None) -> dict[str, Any]:
    """`run` of a plan that is resolved already."""
    directory = ModelDirectory(out)
    directory.exists()
    with processes.main_holds(directory.locked):
        return _learn_all(plan, directory, spoken(progress))


@endings.together()
def learn(
    out: Path,
    task: TaskData,
    config: RunConfig | None = None,
    progress: Progress | None = None,
    watch: Sequence[TaskData] = (),
    guard: Guard | None = None,
    begin: Begin | None = None,
) -> dict[str, Any]:
    """Add one task to a model directory; the results.

    `config` starts a new directory; an existing one goes on as its `model.json` says, which a
    `config` must equal but for the budget of the new stage (`plan.budgets`): all rows are used
    unless it has limits, and settings that it does not name are the directory's. A task that was
    learned already gets one more stage (`continual.again`); from the same data it is not learned
    again. The tasks of `watch` are tested before and after this and every later stage, and kept
    with the model. With a guard the stage stands only if no earlier or watched task falls too far.
    Raises SetAside where one does: the stage is kept, and `holding.accept` lets it stand. `begin`
    is for a caller that has the base model in memory; by default it is loaded.
    """
    progress = spoken(progress)
    directory = ModelDirectory(out)
    plan = asked(directory, task, config, watch)
    with processes.main_holds(directory.locked):
        added = grown(plan, task, directory, progress)
        if not added.learned:
            more = added.watched, guard, begin
            return _learn_all(added.plan, directory, progress, *more, extend=True)
        if added.watched:
            return _train(added.plan, directory, progress, added.watched, begin=begin)
        return write_results(directory, names(added.plan), plan.config.method)


def _learn_all(
    plan: Plan,
    directory: ModelDirectory,
    progress: Progress,
    watch: Sequence[TaskData] = (),
    guard: Guard | None = None,
    begin: Begin | None = None,
    extend: bool = False,
) -> dict[str, Any]:
    """Train the stages that are not committed yet, under the directory's lock."""
    tasks = names(plan)
    plan = agreed(plan, directory, extend)
    for note in dict.fromkeys(note for data in plan.stream for note in data.notes):
        progress.message(note)
    done = directory.stages()
    stages = aligned(plan.stages(), done) if extend else plan.stages()
    if len(done) == len(stages) and (stages or directory.zero_shot() is not None):
        progress.message(f"{directory.path}: all {len(done)} stages are there, nothing to do")
        return write_results(directory, tasks, plan.config.method)
    if len(done) < len(stages):  # a method may train nothing
        _check_pending(plan, directory, stages[len(done)])
    return _train(plan, directory, progress, watch, guard, begin, zero_shot=not extend)


def _check_pending(plan: Plan, directory: ModelDirectory, stage: Stage) -> None:
    """Raise NloraError if a stage is trained and not in force, SetAside if it is this one."""
    record = directory.pending.record()
    if record is None:
        return
    prints = {data.name: data.fingerprint() for data in stage.tasks}
    if (record.fingerprints, record.budget) == (prints, budget(plan, stage)):
        raise SetAside(directory.path, record.name, record.notes["guard"])
    directory.pending.check_none()


def _train(
    plan: Plan,
    directory: ModelDirectory,
    progress: Progress,
    watch: Sequence[TaskData] = (),
    guard: Guard | None = None,
    begin: Begin | None = None,
    zero_shot: bool = False,
) -> dict[str, Any]:
    """Load the model, begin the directory if it is new, and learn what is left."""
    from nlora.continual.building import check_metrics, check_packing, check_tasks
    from nlora.continual.model import ContinualModel
    from nlora.continual.preview import planned_steps
    from nlora.continual.stages import learn_stage, test_first
    from nlora.continual.stages import watch as add_watched
    from nlora.continual.taking_over import take_over
    from nlora.training.arguments import check_available
    from nlora.training.determinism import deterministic

    check_available(plan.run)
    for line in plan.run.doubts():
        progress.message(line)
    check_metrics(plan, progress.message)
    directory.check_writable()
    tasks = names(plan)
    method = plan.config.method
    with deterministic(plan.run.deterministic):
        model = (begin or ContinualModel.begin)(plan, directory, progress)
        stages, done = aligned(plan.stages(), model.records), len(model.records)
        coming = [*(data for stage in stages[done:] for data in stage.tasks), *watch]
        check_packing(plan, model.adapter.model)
        check_tasks(plan, model.backbone, model.encoder, coming, progress.message)
        for line in filter(None, (told(data.task, data.test) for data in coming)):
            progress.message(line)
        left = stages[done:]
        for line in never_acting(plan.method, left, planned_steps(plan, model.encoder, left)):
            progress.message(line)
        if not begun(directory):
            processes.on_main(lambda: directory.write_config(document(plan)))
        before = plan.tested_first
        if not done and zero_shot and before and directory.zero_shot() is None:
            test_first(model, before)
            write_results(directory, tasks, method)
        for data in watch:
            add_watched(model, data)
            write_results(directory, tasks, method)
        for number, stage in enumerate(stages[done:], start=done + 1):
            among = stages[: plan.stages_tested(number, len(stages))]
            tested = [*as_tasks([d for one in among for d in one.tasks]), *plan.only_tested]
            if number == 1 and plan.config.from_adapter is not None:
                take_over(model, stage, tested)
            else:
                learn_stage(model, stage, tested, guard)
            write_results(directory, tasks, method)
    return directory.results()
