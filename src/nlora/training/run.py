"""`run` learns a stream; `learn` adds one task. Both write a model directory stage by stage."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nlora import processes
from nlora.data.streams import load_stream
from nlora.data.task import Example, Task, TaskData, sample
from nlora.errors import NloraError
from nlora.methods.base import Stage
from nlora.models.catalog import resolve
from nlora.models.local import FINGERPRINT
from nlora.store.directory import ModelDirectory, StageRecord
from nlora.training.config import DERIVED, Plan, RunConfig, parse_config, plan
from nlora.training.progress import Silent, Watcher
from nlora.training.results import results

_NOT_COMPARED = ("data", "plugin", "stream")
"""Paths and names: the tasks and the fingerprints of their data are compared instead."""


def prepare(
    config: RunConfig, stream: Sequence[TaskData] | None = None
) -> tuple[Plan, list[TaskData]]:
    """The plan and the sampled stream of a configuration, without loading the model.

    `stream` stands in for the one that the configuration names. Raises NloraError for anything in
    either that is wrong.
    """
    asked = plan(config)  # a misspelt setting should not wait for a download
    if stream is None:
        if config.stream is None:
            raise NloraError("which stream? give --stream NAME (`nlora streams` lists them)")
        stream = load_stream(config.stream, Path(config.data) if config.data else None)
    stages = asked.method.stages(stream)
    if stages:
        asked.check_lists(len(stages))
    elif config.evaluate == "seen":
        raise NloraError(f"{config.method} trains nothing: give --evaluate next or all")
    resolved = plan(config, resolve(config.model).recommended)
    return resolved, [_sampled(data, config) for data in stream]


@processes.together()
def run(
    config: RunConfig,
    out: Path,
    watcher: Watcher | None = None,
    stream: Sequence[TaskData] | None = None,
) -> dict[str, Any]:
    """Learn a stream, going on after the last committed stage; the results.

    `stream` gives the tasks themselves instead of the name in `config`. Raises NloraError if `out`
    holds another configuration or something else.
    """
    watcher = heard(watcher)
    directory = ModelDirectory(out)
    directory.exists()
    resolved, sampled = prepare(config, stream)
    with processes.main_holds(directory.locked):
        return _learn_all(resolved, directory, sampled, watcher)


@processes.together()
def learn(
    out: Path,
    task: TaskData,
    config: RunConfig | None = None,
    watcher: Watcher | None = None,
) -> dict[str, Any]:
    """Add one task to a model directory; the results.

    `config` starts a new directory; an existing one goes on as its `model.json` says, which a
    `config` must equal. A task that was learned already, from the same data, is not learned again.
    """
    watcher = heard(watcher)
    directory = ModelDirectory(out)
    exists = directory.exists()
    if config is None:
        if not exists:
            raise NloraError(f"{out} holds no model; a new one needs --model and --method")
        config = stored_config(directory)
    plan(config)
    resolved = plan(config, resolve(config.model).recommended)
    with processes.main_holds(directory.locked):
        data = _sampled(task, config)
        earlier = learned_tasks(directory)
        names = [known.name for known in earlier]
        if task.name not in names:
            return _learn_all(resolved, directory, [*earlier, data], watcher, extend=True)
        settle(resolved, directory, None)
        fingerprints = [r.fingerprints.get(task.name) for r in directory.stages()]
        if data.fingerprint() not in fingerprints:
            raise NloraError(
                f"{out} has learned another task named '{task.name}'; give this one another name"
            )
        watcher.message(f"{out} has learned '{task.name}' already, nothing to do")
        return _write_results(directory, names, config.method)


def heard(watcher: Watcher | None) -> Watcher:
    """The watcher where there is one, and only in the process that speaks."""
    return watcher if watcher is not None and processes.is_main() else Silent()


def stored_config(directory: ModelDirectory) -> RunConfig:
    """The configuration in `model.json`."""
    values = {k: v for k, v in directory.config().items() if k not in DERIVED}
    return parse_config(values, str(directory.path / "model.json"))


def _learn_all(
    resolved: Plan,
    directory: ModelDirectory,
    stream: Sequence[TaskData],
    watcher: Watcher,
    extend: bool = False,
) -> dict[str, Any]:
    """Train the stages that are not committed yet, under the directory's lock."""
    from nlora.training.determinism import deterministic

    config = resolved.config
    tasks = [data.name for data in stream]
    stages = [
        Stage(index, name, data, seed=(config.seed * 1000 + index) % 2**32)  # NumPy's bound
        for index, (name, data) in enumerate(resolved.method.stages(stream), start=1)
    ]
    resolved, begun = settle(resolved, directory, None if extend else tasks)
    done = directory.stages()
    _check_stages(directory, done, stages)
    if extend:
        if len(done) == len(stages):
            raise NloraError(
                f"{config.method} trains all its tasks in one stage, so {directory.path} cannot "
                "learn one more"
            )
        resolved.check_lists(len(stages), exactly=False)
    if len(done) == len(stages) and (stages or directory.zero_shot() is not None):
        watcher.message(f"{directory.path}: all {len(done)} stages are there, nothing to do")
        return _write_results(directory, tasks, config.method)

    learner = _learner(resolved, directory, stream, watcher, begun)
    with deterministic(resolved.run.deterministic):
        learner.restore()
        if not done and not extend and config.evaluate != "seen" and directory.zero_shot() is None:
            learner.zero_shot()
            _write_results(directory, tasks, config.method)
        for number, stage in enumerate(stages[len(done) :], start=len(done) + 1):
            learner.learn(stage, _tested(config.evaluate, stages, number))
            _write_results(directory, tasks, config.method)
    return directory.results()


def _learner(
    resolved: Plan,
    directory: ModelDirectory,
    stream: Sequence[TaskData],
    watcher: Watcher,
    begun: bool,
) -> Any:
    """The model loaded, and the directory begun if it is new."""
    from nlora.models.backbone import load
    from nlora.training.learner import Learner, versions, weights_dtype
    from nlora.training.trainer import check_available

    check_available(resolved.run)
    config = resolved.config
    watcher.message(f"loading {config.model}")
    backbone = load(resolve(config.model), weights_dtype(resolved))
    if not begun:
        begin = {
            **config.model_dump(mode="json"),
            "settings": resolved.settings(),
            "base": {"title": backbone.title, "revision": backbone.revision},
            "tasks": [data.name for data in stream],
            "versions": versions(),
        }
        processes.on_main(lambda: directory.write_config(begin))
    return Learner(resolved, backbone, directory, stream, watcher)


def _write_results(directory: ModelDirectory, tasks: Sequence[str], method: str) -> dict[str, Any]:
    found = results(directory, tasks, method)
    processes.on_main(lambda: directory.write_results(found))
    return found


def _tested(evaluate: str, stages: Sequence[Stage], number: int) -> list[TaskData]:
    last = {"seen": number, "next": number + 1, "all": len(stages)}[evaluate]
    return [data for stage in stages[:last] for data in stage.tasks]


def settle(
    resolved: Plan, directory: ModelDirectory, tasks: Sequence[str] | None
) -> tuple[Plan, bool]:
    """The plan with its precision decided, and whether the directory has begun with it.

    Raises NloraError if it has begun with another plan or other tasks (None: any). Where nothing
    is committed yet nothing can be lost, and any plan may begin.
    """
    begun = bool(directory.stages()) or directory.zero_shot() is not None
    if not begun:
        return decided(resolved), False
    stored = directory.config().get("settings", {}).get("precision", "fp32")
    resolved = decided(resolved, stored)
    _check_same(resolved, directory, tasks)
    return resolved, True


def decided(resolved: Plan, precision: str | None = None) -> Plan:
    """The plan with `precision: auto` decided: as given, else by what this machine does faster."""
    from nlora.models.backbone import bf16_is_faster

    if resolved.run.precision != "auto":
        return resolved
    precision = precision or ("bf16" if bf16_is_faster() else "fp32")
    run_settings = resolved.run.model_copy(update={"precision": precision})
    return resolved.model_copy(update={"run": run_settings})


def _check_same(resolved: Plan, directory: ModelDirectory, tasks: Sequence[str] | None) -> None:
    """Raise NloraError if the directory holds another configuration."""
    stored = directory.config()
    asked = resolved.config.model_dump(mode="json")
    pairs = {
        name: (stored.get(name), asked[name])
        for name in asked
        if name not in (*_NOT_COMPARED, "settings")
    }
    if _same_base(stored.get("base", {}), directory, resolved.config.model):
        del pairs["model"]
    if tasks is not None:
        pairs["tasks"] = (stored.get("tasks"), list(tasks))
    old, new = stored.get("settings", {}), resolved.settings()
    pairs |= {name: (old[name], new.get(name)) for name in old}  # newer settings: their default
    different = [f"{name} {a!r}, not {b!r}" for name, (a, b) in pairs.items() if a != b]
    if different:
        shown = "; ".join(different[:3]) + ("; …" if len(different) > 3 else "")
        learned = stored.get("tasks") or []
        grown = tasks is not None and len(different) == 1 and list(tasks)[: len(learned)] == learned
        advice = "`nlora learn` adds a task to it" if grown else "choose another folder"
        raise NloraError(f"{directory.path} holds a different configuration ({shown}); {advice}")


def _same_base(base: dict[str, Any], directory: ModelDirectory, model: str) -> bool:
    """Whether a model in a folder is the one that was trained on, wherever it lies.

    Raises NloraError if a model has other weights than the one of that name had.
    """
    known, found = base.get("revision"), resolve(model)
    folders = [str(r).startswith(FINGERPRINT) for r in (known, found.revision)]
    if known in (None, found.revision):  # None: a Hub name, or a folder before they had one
        return all(folders)
    if all(folders):
        raise NloraError(
            f"{directory.path} holds a different configuration: it was trained on another model "
            f"than the one in {model} (weights, config.json or tokenizer); choose another folder"
        )
    raise NloraError(
        f"{directory.path} was trained on {base.get('title')} ({known}), but '{model}' is "
        f"{found.title} ({found.revision}) here"
    )


def _check_stages(
    directory: ModelDirectory, done: Sequence[StageRecord], planned: Sequence[Stage]
) -> None:
    """Raise NloraError if what was learned is not the beginning of what is planned."""
    names = [record.name for record in done]
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


def learned_tasks(directory: ModelDirectory) -> list[TaskData]:
    """The tasks learned so far with their test examples, as the directory kept them."""
    tests = directory.tests()
    found = []
    for record in directory.stages():
        for value in record.tasks:
            task = Task.from_json(value)
            rows = tests.get(task.name, [])
            test = tuple(Example(task, row["text"], row["label"]) for row in rows)
            found.append(TaskData(task, (), test))
    return found


def _sampled(data: TaskData, config: RunConfig) -> TaskData:
    """At most `max_train` examples by the seed and `max_eval` that do not depend on it."""
    return replace(
        data,
        train=sample(data.train, config.max_train, config.seed),
        test=sample(data.test, config.max_eval, seed=0),
    )
