"""`run` learns a stream; `learn` adds one task. Both write a model directory stage by stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nlora import processes
from nlora.continual.again import again, learned_from, same_budget, what_is_new
from nlora.continual.agreement import begun, check_plan, check_stages, document
from nlora.continual.guard import Guard, SetAside
from nlora.continual.results import results
from nlora.continual.tasks import aligned, as_tasks, learned_stages, only_tested
from nlora.data.comparing import told
from nlora.data.task import TaskData
from nlora.errors import NloraError
from nlora.methods.parts.terms import never_acting
from nlora.plan.budgets import (
    LIMITS,
    at_stage,
    budget,
    in_words,
    with_settings_of,
    without_limits,
)
from nlora.plan.config import RunConfig, stored_config
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
    watch: Sequence[TaskData] = (),
    guard: Guard | None = None,
) -> dict[str, Any]:
    """Add one task to a model directory; the results.

    `config` starts a new directory; an existing one goes on as its `model.json` says, which a
    `config` must equal but for the budget of the new stage (`plan.budgets`): all rows are used
    unless it has limits, and settings that it does not name are the directory's. A task that was
    learned already gets one more stage (`continual.again`); from the same data it is not learned
    again. The tasks of `watch` are tested before and after this and every later stage, and kept
    with the model. With a guard the stage stands only if no earlier or watched task falls too far.
    Raises SetAside where one does: the stage is kept, and `holding.accept` lets it stand.
    """
    progress = spoken(progress)
    directory = ModelDirectory(out)
    plan = _asked(directory, task, config, watch)
    with processes.main_holds(directory.locked):
        grown = _grown(plan, task, directory, progress)
        if not grown.learned:
            more = grown.watched, guard
            return _learn_all(grown.plan, directory, progress, *more, extend=True)
        if grown.watched:
            return _train(grown.plan, directory, progress, grown.watched)
        return _write_results(directory, _names(grown.plan), plan.config.method)


def next_stage(
    out: Path,
    task: TaskData,
    config: RunConfig | None = None,
    progress: Progress | None = None,
    watch: Sequence[TaskData] = (),
) -> Plan | None:
    """The plan by which `learn` would add the task; None where it is learned already.

    Nothing is written or locked, and no model is loaded. Raises NloraError as `learn` does.
    """
    directory = ModelDirectory(out)
    plan = _asked(directory, task, config, watch)
    grown = _grown(plan, task, directory, spoken(progress))
    return None if grown.learned else _agreed(grown.plan, directory, extend=True)


def _asked(
    directory: ModelDirectory,
    task: TaskData,
    config: RunConfig | None,
    watch: Sequence[TaskData] = (),
) -> Plan:
    """The plan of what `learn` is asked for, over its task and those that it shall watch alone."""
    exists = directory.exists()
    if config is None:
        if not exists:
            raise NloraError(
                f"{directory.path} holds no model; a new one needs --model, or --from-adapter"
            )
        config = stored_config(directory)
        if begun(directory):
            config = without_limits(config)
    elif exists and begun(directory):
        config = with_settings_of(config, directory.config())
    if task.only_tested:
        raise NloraError(
            f"task '{task.name}' has no training examples; a task that is only tested is given by "
            "--watch, or stands in the stream of `nlora run`"
        )
    return resolve(config, [task, *watch], whole=False)


class _Grown(NamedTuple):
    """The plan over the tasks of a directory and what is added to them."""

    plan: Plan
    watched: list[TaskData]
    """Those that are watched from now on."""
    learned: bool = False
    """Whether the task is learned already, so that no stage is added."""


def _grown(plan: Plan, task: TaskData, directory: ModelDirectory, progress: Progress) -> _Grown:
    """What `learn` would do in a directory. Raises NloraError if it cannot be done there."""
    config, [data, *asked] = plan.config, plan.stream
    stages, others = learned_stages(directory), only_tested(directory)
    if task.name in [known.name for known in others]:
        raise NloraError(f"{directory.path} only tests '{task.name}'; give this task another name")
    earlier = {known.name: known for known in as_tasks(stages)}
    new = _newly_watched(asked, [*earlier, task.name], others, directory.path)
    others += new
    if task.name in earlier:
        learned = learned_from(plan, task, directory)
        if learned is not None:
            plan = plan.with_precision(directory.precision())
            check_plan(plan, directory, None)
            progress.message(same_budget(plan, task, learned, directory))
            return _Grown(plan.with_stream([*stages, *others]), new, learned=True)
        data = sampled(again(earlier[task.name].task, task), config)
        for line in what_is_new(earlier[task.name], data):
            progress.message(line)
    knows = None if directory.stages() else config.knows
    known = [] if knows is None else [sampled(known_task(knows), config)]
    stream = [*known, *stages, data, *others]
    if known:
        check_names(stream)
    return _Grown(_own_budget(plan, data, directory, progress).with_stream(stream), new)


def _newly_watched(
    asked: Sequence[TaskData], learned: Sequence[str], known: Sequence[TaskData], out: Path
) -> list[TaskData]:
    """Those of the asked tasks that are not watched yet. Raises NloraError for names that clash."""
    watched = {data.name: data for data in known}
    for data in asked:
        if data.name in learned:
            raise NloraError(
                f"task '{data.name}' is learned, so it is tested anyway; give the one that is "
                "watched another name (--watch NAME=FILE)"
            )
        if data.name in watched and watched[data.name].fingerprint() != data.fingerprint():
            raise NloraError(
                f"{out} watches another task named '{data.name}'; give this one another name "
                "(--watch NAME=FILE)"
            )
    names = [data.name for data in asked]
    if len(set(names)) < len(names):
        raise NloraError("--watch was given two tasks of one name; use --watch NAME=FILE")
    return [data for data in asked if data.name not in watched]


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


def spoken(progress: Progress | None) -> Progress:
    """The progress where somebody wants it, and only in the process that speaks."""
    return progress if progress is not None and processes.is_main() else NoProgress()


def _learn_all(
    plan: Plan,
    directory: ModelDirectory,
    progress: Progress,
    watch: Sequence[TaskData] = (),
    guard: Guard | None = None,
    extend: bool = False,
) -> dict[str, Any]:
    """Train the stages that are not committed yet, under the directory's lock."""
    tasks = _names(plan)
    plan = _agreed(plan, directory, extend)
    for note in dict.fromkeys(note for data in plan.stream for note in data.notes):
        progress.message(note)
    done = directory.stages()
    stages = aligned(plan.stages(), done) if extend else plan.stages()
    if len(done) == len(stages) and (stages or directory.zero_shot() is not None):
        progress.message(f"{directory.path}: all {len(done)} stages are there, nothing to do")
        return _write_results(directory, tasks, plan.config.method)
    if len(done) < len(stages):  # a method may train nothing
        _check_pending(plan, directory, stages[len(done)])
    return _train(plan, directory, progress, watch, guard, zero_shot=not extend)


def _agreed(plan: Plan, directory: ModelDirectory, extend: bool) -> Plan:
    """The plan in the directory's precision. Raises NloraError if it cannot go on there.

    With `extend` its last task is one more than the directory has.
    """
    if begun(directory):
        plan = plan.with_precision(directory.precision())
        check_plan(plan, directory, None if extend else _names(plan))
    done = directory.stages()
    stages = aligned(plan.stages(), done) if extend else plan.stages()
    check_stages(directory, done, stages)
    if extend:
        if len(done) == len(stages):
            raise NloraError(
                f"{plan.config.method} trains all its tasks in one stage, so {directory.path} "
                "cannot learn one more"
            )
        plan.check_lists(len(stages), exactly=False)
    return plan


def _check_pending(plan: Plan, directory: ModelDirectory, stage: Stage) -> None:
    """Raise NloraError if a stage is trained and not in force, SetAside if it is this one."""
    record = directory.pending.record()
    if record is None:
        return
    prints = {data.name: data.fingerprint() for data in stage.tasks}
    if (record.fingerprints, record.budget) == (prints, budget(plan, stage)):
        raise SetAside(directory.path, record.name, record.notes["guard"])
    raise NloraError(
        f"{directory.path} holds '{record.name}', which is trained and not in force; `nlora accept "
        f"{directory.path}` or `nlora discard {directory.path}` first"
    )


def _train(
    plan: Plan,
    directory: ModelDirectory,
    progress: Progress,
    watch: Sequence[TaskData] = (),
    guard: Guard | None = None,
    zero_shot: bool = False,
) -> dict[str, Any]:
    """Load the model, begin the directory if it is new, and learn what is left."""
    from nlora.continual.building import check_metrics, check_tasks
    from nlora.continual.model import ContinualModel
    from nlora.continual.preview import planned_steps
    from nlora.continual.taking_over import take_over
    from nlora.training.determinism import deterministic
    from nlora.training.trainer import check_available

    check_available(plan.run)
    for line in plan.run.doubts():
        progress.message(line)
    check_metrics(plan, progress.message)
    directory.check_writable()
    tasks = _names(plan)
    method, evaluate = plan.config.method, plan.config.evaluate
    with deterministic(plan.run.deterministic):
        model = ContinualModel.begin(plan, directory, progress)
        stages, done = aligned(plan.stages(), model.records), len(model.records)
        asked = [*(data for stage in stages[done:] for data in stage.tasks), *watch]
        check_tasks(plan, model.backbone, model.encoder, asked, progress.message)
        for line in filter(None, (told(data.task, data.test) for data in asked)):
            progress.message(line)
        left = stages[done:]
        for line in never_acting(plan.method, left, planned_steps(plan, model.encoder, left)):
            progress.message(line)
        if not begun(directory):
            processes.on_main(lambda: directory.write_config(document(plan)))
        others = [data for data in plan.stream if data.only_tested]
        before = list(plan.stream) if evaluate != "seen" else others
        if not done and zero_shot and before and directory.zero_shot() is None:
            model.zero_shot(before)
            _write_results(directory, tasks, method)
        for data in watch:
            model.watch(data)
            _write_results(directory, tasks, method)
        for number, stage in enumerate(stages[done:], start=done + 1):
            tested = [*_tested(evaluate, stages, number), *others]
            if number == 1 and plan.config.from_adapter is not None:
                take_over(model, stage, tested)
            else:
                model.learn(stage, tested, guard)
            _write_results(directory, tasks, method)
    return directory.results()


def _write_results(directory: ModelDirectory, tasks: Sequence[str], method: str) -> dict[str, Any]:
    found = results(directory, tasks, method)
    processes.on_main(lambda: directory.write_results(found))
    return found


def _names(plan: Plan) -> list[str]:
    """Of the tasks, each once."""
    return list(dict.fromkeys(data.name for data in plan.stream))


def _tested(evaluate: str, stages: Sequence[Stage], number: int) -> list[TaskData]:
    last = {"seen": number, "next": number + 1, "all": len(stages)}[evaluate]
    return as_tasks([data for stage in stages[:last] for data in stage.tasks])
