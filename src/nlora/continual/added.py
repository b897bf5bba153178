"""What `learn` adds to a model directory: the plan of the stage that comes next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nlora.continual.again import again, learned_from, perhaps_known, same_budget, what_is_new
from nlora.continual.agreement import agreed, begun, check_plan
from nlora.continual.tasks import as_tasks, learned_stages, only_tested
from nlora.data.task import TaskData
from nlora.errors import NloraError, option
from nlora.plan.budgets import LIMITS, at_stage, in_words, with_settings_of, without_limits
from nlora.plan.config import RunConfig, stored_config
from nlora.plan.given import check_names, known_task
from nlora.plan.resolve import Plan, resolve, sampled
from nlora.progress import Progress, spoken
from nlora.store.directory import ModelDirectory


def wanted_of_new() -> str:
    """What to say where a model directory to go on from is not there."""
    return f"; a new one needs {option('model')}, or {option('from_adapter')}"


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
    plan = asked(directory, task, config, watch)
    found = grown(plan, task, directory, spoken(progress))
    if found.learned:
        return None
    plan = agreed(found.plan, directory, extend=True)
    directory.pending.check_none()
    return plan


def asked(
    directory: ModelDirectory,
    task: TaskData,
    config: RunConfig | None,
    watch: Sequence[TaskData] = (),
) -> Plan:
    """The plan of what `learn` is asked for, over its task and those that it shall watch alone."""
    exists = directory.exists()
    if config is None:
        directory.check_there(wanted_of_new())
        config = stored_config(directory)
        if begun(directory):
            config = without_limits(config)
    elif exists and begun(directory):
        config = with_settings_of(config, directory.config())
    if task.only_tested:
        raise NloraError(
            f"task '{task.name}' has no training examples; a task that is only tested is given by "
            f"{option('watch')}, or stands in the stream of `nlora run`"
        )
    plan = resolve(config, [task, *watch], whole=False)
    if not begun(directory):  # later the files of settings are not needed any more
        plan.method.check()
    plan.check_metrics()
    return plan


class Grown(NamedTuple):
    """The plan over the tasks of a directory and what is added to them."""

    plan: Plan
    watched: list[TaskData]
    """Those that are watched from now on."""
    learned: bool = False
    """Whether the task is learned already, so that no stage is added."""


def grown(plan: Plan, task: TaskData, directory: ModelDirectory, progress: Progress) -> Grown:
    """What `learn` would do in a directory. Raises NloraError if it cannot be done there."""
    config, [data, *watched] = plan.config, plan.stream
    stages, others = learned_stages(directory), only_tested(directory)
    if task.name in [known.name for known in others]:
        raise NloraError(f"{directory.path} only tests '{task.name}'; give this task another name")
    earlier = {known.name: known for known in as_tasks(stages)}
    new = _newly_watched(watched, [*earlier, task.name], others, directory.path)
    others += new
    if task.name in earlier:
        learned = learned_from(plan, task, directory)
        if learned is not None:
            plan = plan.with_precision(directory.precision())
            check_plan(plan, directory, None)
            progress.message(same_budget(plan, task, learned, directory))
            return Grown(plan.with_stream([*stages, *others]), new, learned=True)
        data = sampled(again(earlier[task.name].task, task), config)
        for line in what_is_new(earlier[task.name], data):
            progress.message(line)
    elif asks := perhaps_known(list(earlier.values()), task):
        progress.message(asks)
    knows = None if directory.stages() else config.knows
    known = [] if knows is None else [sampled(known_task(knows), config)]
    stream = [*known, *stages, data, *others]
    if known:
        check_names(stream)
    return Grown(_own_budget(plan, data, directory, progress).with_stream(stream), new)


def _newly_watched(
    asked: Sequence[TaskData], learned: Sequence[str], known: Sequence[TaskData], out: Path
) -> list[TaskData]:
    """Those of the asked tasks that are not watched yet. Raises NloraError for names that clash."""
    watched = {data.name: data for data in known}
    for data in asked:
        if data.name in learned:
            raise NloraError(
                f"task '{data.name}' is learned, so it is tested anyway; give the one that is "
                f"watched another name: {option('watch', 'NAME=FILE')}"
            )
        if data.name in watched and watched[data.name].fingerprint() != data.fingerprint():
            raise NloraError(
                f"{out} watches another task named '{data.name}'; give this one another name: "
                f"{option('watch', 'NAME=FILE')}"
            )
    names = [data.name for data in asked]
    if len(set(names)) < len(names):
        raise NloraError(
            f"two of the watched tasks have one name; give another: {option('watch', 'NAME=FILE')}"
        )
    return [data for data in asked if data.name not in watched]


def _own_budget(plan: Plan, data: TaskData, directory: ModelDirectory, progress: Progress) -> Plan:
    """The plan with the budget of the stage that a directory gets next; what it is, is said."""
    progress.message(f"'{data.name}': {in_words(data.used())} are used")
    if not begun(directory):
        return plan
    stored = directory.config()
    for name in LIMITS:
        if getattr(plan.config, name) is None and stored.get(name) is not None:
            said = option(name, stored[name])
            progress.message(f"{said} of the first stage is not inherited; give it again to use it")
    plan, said = at_stage(plan, len(directory.stages()) + 1)
    for line in said:
        progress.message(line)
    return plan
