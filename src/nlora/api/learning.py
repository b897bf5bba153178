"""`nlora.learn`: one more task for a model that keeps what it knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlora.api.arguments import check
from nlora.api.arguments import place as place_of
from nlora.api.configs import Place, configuration, method_name, rehearsal
from nlora.api.results import Results
from nlora.api.tasks import AnyTask, several, task_of, watched_task
from nlora.api.watching import watched
from nlora.errors import Faults, option, unknown
from nlora.progress import spoken

if TYPE_CHECKING:
    from nlora.continual.guard import Guard
    from nlora.continual.learning import Begin
    from nlora.data.task import TaskData
    from nlora.methods.base import Method
    from nlora.plan.config import RunConfig
    from nlora.progress import Progress
    from nlora.store.directory import ModelDirectory


def learn(
    out: Place,
    task: AnyTask,
    *,
    model: Place | None = None,
    method: str | type[Method] | None = None,
    data: Place | None = None,
    seed: int | None = None,
    max_train: int | None = None,
    max_eval: int | None = None,
    replay: str | float | None = None,
    neutral: Place | None = None,
    settings: Mapping[str, Any] | None = None,
    config: Place | None = None,
    plugin: Place | None = None,
    from_adapter: Place | None = None,
    knows: str | None = None,
    watch: AnyTask | Sequence[AnyTask] = (),
    max_forgetting: float | None = 2.0,
    repair: str = "offer",
    progress: Progress | bool | None = None,
) -> Results:
    """Add a task to the model directory `out`; a new one needs `model`, or `from_adapter`.

    The arguments are the options of `nlora learn`. `task` is a `Task`, a file of rows, a YAML file
    of one task, or a data set of the benchmark; those of `watch` are only tested. Without `method`
    a new directory keeps an adapter per task, which is found by the text. The stage stands only if
    no earlier or watched task loses more than `max_forgetting` points (None: whatever it costs);
    else `SetAside` is raised, and the stage is kept (`Model.accept`, `Model.discard`). Raises
    NloraError for all that is wrong, before a model is loaded where that is possible.

    >>> import nlora
    >>> from tempfile import mkdtemp
    >>> rows = [("i was charged twice", "billing"), ("it is slow", "technical")]
    >>> mail = nlora.Task("mail", train=rows, test=rows, labels="auto", instruction="Which team?")
    >>> nlora.learn(mkdtemp(), mail, model="tiny-t5", settings={"rank": 2}).tasks
    ['mail']
    """
    told = watched(progress)
    asked = requested(
        out,
        task,
        model=model,
        method=method,
        data=data,
        seed=seed,
        max_train=max_train,
        max_eval=max_eval,
        replay=replay,
        neutral=neutral,
        settings=settings,
        config=config,
        plugin=plugin,
        from_adapter=from_adapter,
        knows=knows,
        watch=watch,
        max_forgetting=max_forgetting,
        repair=repair,
        progress=told,
    )
    return asked.done(told)


@dataclass(frozen=True)
class Request:
    """What `learn` is asked for, read and checked; nothing is loaded yet."""

    out: Path
    task: TaskData
    config: RunConfig | None
    """None: an existing directory goes on as it is."""
    watched: list[TaskData]
    guard: Guard

    def done(self, progress: Progress | None = None, begin: Begin | None = None) -> Results:
        """Learn it, with a model that `begin` gives. Raises SetAside where it costs too much."""
        from nlora.continual.learning import learn as learn_task

        more = self.watched, self.guard, begin
        return Results(learn_task(self.out, self.task, self.config, progress, *more))


def requested(
    out: Place,
    task: AnyTask,
    *,
    data: Place | None = None,
    settings: Mapping[str, Any] | None = None,
    config: Place | None = None,
    replay: str | float | None = None,
    neutral: Place | None = None,
    method: str | type[Method] | None = None,
    watch: AnyTask | Sequence[AnyTask] = (),
    max_forgetting: float | None = 2.0,
    repair: str = "offer",
    progress: Progress | None = None,
    **given: Any,
) -> Request:
    """What `learn` is asked for by these arguments. Raises NloraError with all that is wrong."""
    from nlora.continual.added import wanted_of_new
    from nlora.continual.agreement import begun, check_method
    from nlora.methods.registry import defines_parts, import_plugin
    from nlora.plan.budgets import LIMITS
    from nlora.plan.config import parse_config
    from nlora.plan.recommended import chosen, why
    from nlora.plan.resolve import choose
    from nlora.store.directory import ModelDirectory

    plugin = given.get("plugin")
    module = None if plugin is None else import_plugin(Path(plugin).expanduser())
    faults, place = Faults(), place_of(out=out)
    directory = ModelDirectory(place)
    new, inherited, unsaid = None, False, False
    exists = directory.exists()
    name = faults.attempt(lambda: method_name(method))
    if exists and name is not None:
        faults.attempt(lambda: check_method(directory, name))
    agreed = not faults.found
    found = faults.attempt(lambda: task_of(task, data))
    others = [
        faults.attempt(lambda one=one: watched_task(one, data)) for one in several(watch, "'watch'")
    ]
    measured = [one.task.metric for one in (found, *others) if one is not None and one.task.metric]
    if module is not None and not (defines_parts(module) or any(":" in name for name in measured)):
        given["plugin"] = None  # its rows are read by now, and nothing needs it any more
    flags = {"method": name, **given}
    goes_on = exists and begun(directory)
    anew = config is not None or (given.get("model") and name and not goes_on)
    left = exists and not goes_on and not anew
    rehearsed = rehearsal(replay, neutral)
    told = [config, settings, rehearsed, *(value is not None for value in flags.values())]
    if agreed and (any(told) or not exists):
        if exists and not anew:
            config = place / "model.json"
            inherited = goes_on
        values = configuration(settings, None, config, replay, neutral, data=data, **flags)
        if inherited:  # all rows, unless this stage is told otherwise
            values |= {limit: given.get(limit) for limit in LIMITS}
        unsaid = not (values.get("method") or values.get("from_adapter") or config)
        if unsaid:
            values = chosen(values)
        if exists or config or values.get("model") or values.get("from_adapter"):
            source = str(config or f"{place} will be a new model directory")
            new = faults.attempt(lambda: parse_config(values, source))
        else:
            faults.attempt(lambda: directory.check_there(wanted_of_new()))
    if new is not None:
        faults.attempt(lambda: choose(new))
    guard = faults.attempt(lambda: guard_of(max_forgetting, repair))
    faults.check()
    if left:
        spoken(progress).message(_begun_with(directory))
    assert found is not None
    assert guard is not None
    if unsaid:
        spoken(progress).message(why())
    return Request(place, found, new, [one for one in others if one is not None], guard)


def _begun_with(directory: ModelDirectory) -> str:
    """What to say of a directory whose first stage was never committed."""
    stored = directory.config()
    return (
        f"{directory.path} holds no stage yet, and was begun with {stored['method']} on "
        f"{stored['model']}, which is gone on with; {option('model')} and {option('method')} begin "
        "anew"
    )


def guard_of(max_forgetting: float | None, repair: str) -> Guard:
    """The guard that is asked for. Raises NloraError for what cannot be."""
    check(max_forgetting=max_forgetting, repair=repair)
    from nlora.continual.guard import REPAIRS, Guard

    if repair not in REPAIRS:
        raise unknown(option("repair"), repair, REPAIRS)
    bound = 100.0 if max_forgetting is None else float(max_forgetting)
    return Guard(bound, repair)  # type: ignore[arg-type]
