"""Whether a model directory and a plan are of one run: nothing else may go on in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlora.backbones.attention import missing_here
from nlora.backbones.fingerprint import FINGERPRINT
from nlora.continual.tasks import aligned, answerable_tasks
from nlora.data.task import digest
from nlora.errors import NloraError, option
from nlora.plan.budgets import LIMITS, own_settings, without_limits
from nlora.plan.config import LATER, stored_config, with_todays_names
from nlora.plan.resolve import Plan, resolve
from nlora.store.directory import ModelDirectory, StageRecord
from nlora.store.records import taken_out

if TYPE_CHECKING:
    from nlora.methods.context import Stage

_NOT_COMPARED = ("data", "plugin", "stream")
"""Paths and names: the tasks and the fingerprints of their data are compared instead."""

_BEGUN_WITH = ("from_adapter", "knows")
"""What the first stage was, which is there when another is added; in a copy without its folder."""

FREE = ("attention", "checkpoint_every", "measure_kl", "packing", "sharding")
"""Settings that no number depends on, but for rounding and what dropout draws: they may differ from
start to start."""


def stored_plan(directory: ModelDirectory, settings: Mapping[str, Any] | None = None) -> Plan:
    """The plan that a directory was begun with, over the tasks that it has learned.

    `settings` take the place of its own. Raises NloraError if there is no model, if it has learned
    nothing, or if the base model is another one now.
    """
    learned = answerable_tasks(directory)
    config = without_limits(stored_config(directory))
    if settings:
        config = config.model_copy(update={"settings": {**config.settings, **settings}})
    plan = resolve(config, learned, whole=False)
    plan = plan.with_precision(directory.precision())
    if missing_here(plan.run.attention, plan.run.precision):  # it was there in training
        plan = replace(plan, run=plan.run.model_copy(update={"attention": "auto"}))
    check_base(plan, directory)
    return plan


def check_plan(plan: Plan, directory: ModelDirectory, tasks: Sequence[str] | None) -> None:
    """Raise NloraError if the directory has begun with another plan or other tasks.

    Without `tasks` a stage is added, which may have a budget of its own.
    """
    own = set() if tasks is not None else {*LIMITS, *_BEGUN_WITH, *own_settings(plan)}
    stored = directory.config()
    asked = plan.config.model_dump(mode="json")
    pairs = {
        name: (stored.get(name), asked[name])
        for name in asked
        if name not in (*_NOT_COMPARED, *own, "settings")
    }
    if _same_base(plan, directory):
        del pairs["model"]
    if tasks is not None:
        pairs["tasks"] = (stored.get("tasks"), list(tasks))
    old, new = with_todays_names(stored.get("settings", {})), plan.settings()
    # Newer settings than the directory has have their default.
    for name in [n for n in {**LATER, **old} if n not in (*own, *FREE)]:
        pairs[name] = old.get(name, LATER.get(name)), new.get(name, LATER.get(name))
    different = [f"{name} {a!r}, not {b!r}" for name, (a, b) in pairs.items() if a != b]
    if different:
        shown = "; ".join(different[:3]) + ("; …" if len(different) > 3 else "")
        learned = stored.get("tasks") or []
        grown = tasks is not None and len(different) == 1 and list(tasks)[: len(learned)] == learned
        advice = "`nlora learn` adds a task to it" if grown else "choose another folder"
        raise NloraError(f"{directory.path} holds a different configuration ({shown}); {advice}")


def check_method(directory: ModelDirectory, method: str) -> None:
    """Raise NloraError if a directory was begun with another method than the one that is asked."""
    stored = directory.config().get("method")
    if begun(directory) and method != stored:
        raise NloraError(
            f"{directory.path} holds method '{stored}', not '{method}', and all its stages are "
            f"learned by one; leave {option('method')} out, or choose another folder"
        )


def check_base(plan: Plan, directory: ModelDirectory) -> None:
    """Raise NloraError if the plan's base model is another one than was trained on."""
    _same_base(plan, directory)


def _same_base(plan: Plan, directory: ModelDirectory) -> bool:
    """Whether a model in a folder is the one that was trained on, wherever it lies.

    Raises NloraError if a model has other weights than the one of that name had.
    """
    base, found, model = directory.config().get("base", {}), plan.base, plan.config.model
    known = base.get("revision")
    folders = [str(r).startswith(FINGERPRINT) for r in (known, found.revision)]
    if known in (None, found.revision):  # None: a Hub name, or a folder before they had one
        return all(folders)
    if all(folders):
        raise NloraError(
            f"{directory.path} holds a different configuration: it was trained on another model "
            f"than the one in {model} (weights, config.json or tokenizer); choose another folder"
        )
    if folders[0] and found.revision is None:
        raise NloraError(
            f"{directory.path} was trained on a model in a folder, '{base.get('title')}' ({known}),"
            f" and {model} is none; `nlora copy {directory.path} NEW --model FOLDER` says where it "
            "is"
        )
    raise NloraError(
        f"{directory.path} was trained on {base.get('title')} ({known}), but '{model}' is "
        f"{found.title} ({found.revision}) here"
    )


def check_stages(
    directory: ModelDirectory, done: Sequence[StageRecord], planned: Sequence[Stage]
) -> None:
    """Raise NloraError if what was learned is not the beginning of what is planned."""
    names = [record.name for record in done]
    out = taken_out(done)
    gone = [
        r.name for r, stage in zip(done, planned, strict=False) if r.folder in out and stage.tasks
    ]
    if gone:
        raise NloraError(
            f"{directory.path} has had {', '.join(gone)} taken out, so it is not what a run makes; "
            "`nlora learn` adds tasks to it"
        )
    if names != [stage.name for stage in planned[: len(done)]]:
        raise NloraError(
            f"{directory.path} holds a different configuration: it has learned "
            f"{', '.join(names)}; choose another folder"
        )
    for record, stage in zip(done, planned, strict=False):
        for data in stage.tasks:
            known = record.fingerprints.get(data.name)
            if data.train and known is not None and known != data.fingerprint():
                raise NloraError(
                    f"{directory.path}: the data of task '{data.name}' is not what its stage was "
                    "trained on; choose another folder"
                )


def going_on(plan: Plan, place: Path) -> str:
    """What a run of this plan would find in its folder. Raises NloraError if it were refused."""
    directory = ModelDirectory(place)
    if not directory.exists() or not begun(directory):
        return f"{place} holds no stage yet; the run would begin there"
    check_plan(plan.with_precision(directory.precision()), directory, [d.name for d in plan.stream])
    done, planned = directory.stages(), plan.stages()
    check_stages(directory, done, planned)
    if len(done) == len(planned):
        return f"{place}: all {len(done)} stages are there; the run would do nothing"
    return (
        f"{place}: {len(done)} of {len(planned)} stages are there; the run would go on after them"
    )


def begun(directory: ModelDirectory) -> bool:
    """Whether anything is committed; where nothing is, nothing can be lost, and any plan begins."""
    return directory.begun()


def document(plan: Plan) -> dict[str, Any]:
    """What `model.json` says of a run with this plan."""
    from nlora.machine import versions

    return {
        **plan.config.model_dump(mode="json"),
        "settings": plan.settings(),
        "base": {"title": plan.base.title, "revision": plan.base.revision},
        "tasks": [data.name for data in plan.stream],
        "versions": versions(),
    }


def numbers_of(plan: Plan, done: Sequence[StageRecord]) -> dict[str, Any]:
    """What decides the numbers of the next stage beside its own data: digests, by their names."""
    settings = {name: v for name, v in plan.settings().items() if name not in FREE}
    return {
        "plan": digest([plan.config.method, settings, plan.config.seed, plan.base.revision]),
        "earlier stages": digest([[record.folder, record.files] for record in done]),
    }


def agreed(plan: Plan, directory: ModelDirectory, extend: bool) -> Plan:
    """The plan in the directory's precision. Raises NloraError if it cannot go on there.

    With `extend` its last task is one more than the directory has.
    """
    if begun(directory):
        plan = plan.with_precision(directory.precision())
        check_plan(plan, directory, None if extend else names(plan))
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


def names(plan: Plan) -> list[str]:
    """Of the tasks, each once."""
    return list(dict.fromkeys(data.name for data in plan.stream))
