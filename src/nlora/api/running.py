"""`nlora.run`: a stream of tasks learned one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlora.api.arguments import place
from nlora.api.configs import Place, configuration
from nlora.api.results import Results
from nlora.api.tasks import AnyTask, several, task_of
from nlora.api.watching import watched
from nlora.errors import NloraError

if TYPE_CHECKING:
    from nlora.data.task import TaskData
    from nlora.methods.base import Method
    from nlora.plan.config import RunConfig
    from nlora.progress import Progress

Stream = str | Path | AnyTask | Sequence[AnyTask]
"""A stream's name, data sets separated by commas, a YAML file, or the tasks themselves: several
or one."""


def run(
    stream: Stream | None = None,
    *,
    out: Place,
    model: Place | None = None,
    method: str | type[Method] | None = None,
    data: Place | None = None,
    seed: int | None = None,
    max_train: int | None = None,
    max_eval: int | None = None,
    evaluate: str | None = None,
    replay: str | float | None = None,
    neutral: Place | None = None,
    settings: Mapping[str, Any] | None = None,
    recipe: str | None = None,
    config: Place | None = None,
    plugin: Place | None = None,
    from_adapter: Place | None = None,
    knows: str | None = None,
    progress: Progress | bool | None = None,
) -> Results:
    """Learn a stream of tasks with one method, task after task, into the model directory `out`.

    The arguments are the options of `nlora run`; `settings` are what `--set` sets. `method` may be
    a class of one's own. A run that was stopped goes on when it is called again, with the same
    tasks where these are objects: the directory knows them by a hash of their rows, and keeps their
    tests, so that `learn` and `evaluate` need none of them later. `progress=True` shows how far it
    is. Raises NloraError for all that is
    wrong, before a model is loaded where that is possible.

    >>> import nlora
    >>> from tempfile import mkdtemp
    >>> rows = [("i was charged twice", "billing"), ("it is slow", "technical")]
    >>> mail = nlora.Task("mail", train=rows, test=rows, labels="auto", instruction="Which team?")
    >>> small = {"rank": 2, "batch_size": 2}
    >>> found = nlora.run([mail], model="tiny-t5", method="inc-lora", out=mkdtemp(), settings=small)
    >>> found.tasks, found.records()[0]["stage"]
    (['mail'], 'mail')
    """
    folder = place(out=out)
    parsed, tasks = configured(
        stream,
        settings=settings,
        recipe=recipe,
        config=config,
        replay=replay,
        neutral=neutral,
        method=method,
        model=model,
        data=data,
        seed=seed,
        max_train=max_train,
        max_eval=max_eval,
        evaluate=evaluate,
        plugin=plugin,
        from_adapter=from_adapter,
        knows=knows,
    )
    from nlora.continual.learning import run as run_stream

    return Results(run_stream(parsed, folder, watched(progress), tasks))


def configured(
    stream: Stream | None, config: Place | None = None, **given: Any
) -> tuple[RunConfig, list[TaskData] | None]:
    """The configuration of a run, and its tasks where they are given as such.

    `given` are arguments of `run`. Raises NloraError for what no configuration can hold.
    """
    from nlora.plan.config import parse_config

    if stream is None or isinstance(stream, str | Path):
        values, tasks = configuration(config=config, stream=stream, **given), None
    else:
        tasks = [task_of(one, given.get("data")) for one in several(stream, "a stream")]
        values = {**configuration(config=config, **given), "stream": None}
        names = [data.name for data in tasks]
        if twice := [name for i, name in enumerate(names) if name in names[:i]]:
            raise NloraError(f"the stream has two tasks named '{twice[0]}'; give one another name")
    return parse_config(values, str(config or "the configuration")), tasks
