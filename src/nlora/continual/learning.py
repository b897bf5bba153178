"""`run` learns a stream; `learn` adds one task. Both write a model directory stage by stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlora import processes
from nlora.continual.agreement import begun, check_plan, check_stages, document
from nlora.continual.results import results
from nlora.continual.tasks import learned_tasks, only_tested
from nlora.data.comparing import told
from nlora.data.task import TaskData
from nlora.errors import NloraError
from nlora.methods.parts.terms import never_acting
from nlora.plan.budgets import (
    LIMITS,
    at_stage,
    check_same,
    in_words,
    with_settings_of,
    without_limits,
)
from nlora.plan.config import RunConfig, stored_config, with_todays_names
from nlora.plan.given import check_names, known_task
from nlora.plan.resolve import Plan, resolve, sampled
from nlora.progress import NoProgress, Progress
from nlora.store.directory import ModelDirectory

if TYPE_CHECKING:
    from nlora.methods.context import Stage


@processes.together()
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


@processes.together()
def learn(
    out: Path,
    task: TaskData,
    config: RunConfig | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Add one task to a model directory; the results.

    `config` starts a new directory; an existing one goes on as its `model.json` says, which a
    `config` must equal but for the budget of the new stage (`plan.budgets`): all rows are used
    unless it has limits, and settings that it does not name are the directory's. A task that was
    learned already, from the same data, is not learned again.
    """
    progress = spoken(progress)
    directory = ModelDirectory(out)
    exists = directory.exists()
    if config is None:
        if not exists:
            raise NloraError(
                f"{out} holds no model; a new one needs --model and --method, or --from-adapter"
            )
        config = stored_config(directory)
        if begun(directory):
            config = without_limits(config)
    elif exists and begun(directory):
        config = with_settings_of(config, directory.config())
    if task.only_tested:
        raise NloraError(
            f"task '{task.name}' has no training examples; a task that is only tested belongs into "
            "the stream of `nlora run`"
        )
    plan = resolve(config, [task], whole=False)
    [data] = plan.stream
    with processes.main_holds(directory.locked):
        earlier, others = learned_tasks(directory), only_tested(directory)
        names = [known.name for known in earlier]
        if task.name in [known.name for known in others]:
            raise NloraError(f"{out} only tests '{task.name}'; give this task another name")
        if task.name not in names:
            knows = None if begun(directory) else config.knows
            known = [] if knows is None else [sampled(known_task(knows), config)]
            stream = [*known, *earlier, data, *others]
            if known:
                check_names(stream)
            plan = _own_budget(plan, data, directory, progress)
            return _learn_all(plan.with_stream(stream), directory, progress, extend=True)
        plan = plan.with_precision(directory.precision())
        check_plan(plan, directory, None)
        _check_same_task(plan, task, directory, progress)
        tasks = [*names, *(known.name for known in others)]
        return _write_results(directory, tasks, config.method)


def _own_budget(plan: Plan, data: TaskData, directory: ModelDirectory, progress: Progress) -> Plan:
    """The plan with the budget of the stage that a directory gets next; what it is, is said."""
    progress.message(f"'{data.name}': {in_words(data.used())} are used")
    if not begun(directory):
        return plan
    stored = directory.config()
    for name in LIMITS:
        if getattr(plan.config, name) is None and stored.get(name) is not None:
            flag = f"--{name.replace('_', '-')} {stored[name]}"
            progress.message(f"{flag} of the first stage is not inherited; give it again to use it")
    plan, said = at_stage(plan, len(directory.stages()) + 1)
    for line in said:
        progress.message(line)
    return plan


def _check_same_task(
    plan: Plan, task: TaskData, directory: ModelDirectory, progress: Progress
) -> None:
    """Raise NloraError unless a task was learned already, from the same data, as is asked."""
    stored = directory.config()
    for record in directory.stages():
        then = record.budget or {name: stored.get(name) for name in LIMITS}
        limits = {name: then.get(name) for name in LIMITS}
        used = sampled(task, plan.config.model_copy(update=limits))
        if record.fingerprints.get(task.name) == used.fingerprint():
            check_same(plan, then, with_todays_names(stored.get("settings", {})), task.name)
            progress.message(
                f"{directory.path} has learned '{task.name}' already "
                f"({in_words(used.used())}), nothing to do"
            )
            return
    raise NloraError(
        f"{directory.path} has learned another task named '{task.name}'; give this one another name"
    )


def spoken(progress: Progress | None) -> Progress:
    """The progress where somebody wants it, and only in the process that speaks."""
    return progress if progress is not None and processes.is_main() else NoProgress()


def _learn_all(
    plan: Plan, directory: ModelDirectory, progress: Progress, extend: bool = False
) -> dict[str, Any]:
    """Train the stages that are not committed yet, under the directory's lock."""
    tasks = [data.name for data in plan.stream]
    going_on = begun(directory)
    if going_on:
        plan = plan.with_precision(directory.precision())
        check_plan(plan, directory, None if extend else tasks)
    for note in dict.fromkeys(note for data in plan.stream for note in data.notes):
        progress.message(note)
    stages, done = plan.stages(), directory.stages()
    check_stages(directory, done, stages)
    if extend:
        if len(done) == len(stages):
            raise NloraError(
                f"{plan.config.method} trains all its tasks in one stage, so {directory.path} "
                "cannot learn one more"
            )
        plan.check_lists(len(stages), exactly=False)
    if len(done) == len(stages) and (stages or directory.zero_shot() is not None):
        progress.message(f"{directory.path}: all {len(done)} stages are there, nothing to do")
        return _write_results(directory, tasks, plan.config.method)
    return _train(plan, directory, progress, going_on, zero_shot=not extend)


def _train(
    plan: Plan, directory: ModelDirectory, progress: Progress, going_on: bool, zero_shot: bool
) -> dict[str, Any]:
    """Load the model, begin the directory if it is new, and learn what is left."""
    from nlora.continual.building import check_tasks
    from nlora.continual.model import ContinualModel
    from nlora.continual.preview import planned_steps
    from nlora.continual.taking_over import take_over
    from nlora.training.determinism import deterministic
    from nlora.training.trainer import check_available

    check_available(plan.run)
    for line in plan.run.doubts():
        progress.message(line)
    directory.check_writable()
    tasks = [data.name for data in plan.stream]
    method, evaluate = plan.config.method, plan.config.evaluate
    with deterministic(plan.run.deterministic):
        model = ContinualModel.begin(plan, directory, progress)
        stages, done = plan.stages(), len(model.records)
        asked = [data for stage in stages[done:] for data in stage.tasks]
        check_tasks(plan, model.backbone, model.encoder, asked, progress.message)
        for line in filter(None, (told(data.task, data.test) for data in asked)):
            progress.message(line)
        left = stages[done:]
        for line in never_acting(plan.method, left, planned_steps(plan, model.encoder, left)):
            progress.message(line)
        if not going_on:
            processes.on_main(lambda: directory.write_config(document(plan)))
        others = [data for data in plan.stream if data.only_tested]
        before = list(plan.stream) if evaluate != "seen" else others
        if not done and zero_shot and before and directory.zero_shot() is None:
            model.zero_shot(before)
            _write_results(directory, tasks, method)
        for number, stage in enumerate(stages[done:], start=done + 1):
            tested = [*_tested(evaluate, stages, number), *others]
            if number == 1 and plan.config.from_adapter is not None:
                take_over(model, stage, tested)
            else:
                model.learn(stage, tested)
            _write_results(directory, tasks, method)
    return directory.results()


def _write_results(directory: ModelDirectory, tasks: Sequence[str], method: str) -> dict[str, Any]:
    found = results(directory, tasks, method)
    processes.on_main(lambda: directory.write_results(found))
    return found


def _tested(evaluate: str, stages: Sequence[Stage], number: int) -> list[TaskData]:
    last = {"seen": number, "next": number + 1, "all": len(stages)}[evaluate]
    return [data for stage in stages[:last] for data in stage.tasks]
