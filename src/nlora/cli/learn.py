"""`nlora learn`: one more task for a model that keeps what it knows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nlora import processes
from nlora.cli import guarded as g
from nlora.cli import options as o
from nlora.cli.console import print_json, progress, show_results
from nlora.cli.standing import commits_in
from nlora.cli.watched import watched_task
from nlora.errors import Faults, NloraError

if TYPE_CHECKING:
    from nlora.continual.guard import Guard
    from nlora.data.task import TaskData
    from nlora.plan.resolve import Plan


def learn(
    model_dir: Annotated[Path, typer.Argument(help="The model directory.")],
    task: Annotated[
        str,
        typer.Option(
            help="A data set of the benchmark, a YAML file of one task, or a file of rows: JSON, "
            "CSV, Parquet, a folder saved by `datasets`, hf://owner/name, …"
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(
            help="What the task is called, where --task is a file of rows. The name of a learned "
            "task adds a stage to it.  [default: the file's name]"
        ),
    ] = None,
    test: Annotated[
        str | None,
        typer.Option(help="The test file, where --task is a file of rows; else part is held out."),
    ] = None,
    labels: o.Labels = None,
    columns: o.Columns = None,
    encoding: o.Encoding = None,
    skip_bad_rows: o.SkipBadRows = False,
    hold_out: Annotated[
        float | None,
        typer.Option(help="The share to test on where there is no test file.  [default: 0.2]"),
    ] = None,
    method: o.MethodName = None,
    model: o.Model = None,
    data: o.Data = None,
    seed: o.Seed = None,
    max_train: o.MaxTrain = None,
    max_eval: o.MaxEval = None,
    replay: o.Replay = None,
    neutral: o.Neutral = None,
    overrides: o.Set = None,
    config: o.ConfigFile = None,
    plugin: o.Plugin = None,
    from_adapter: o.FromAdapter = None,
    knows: o.Knows = None,
    watch: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]FILE",
            help="A task that is only tested, before and after this and every later stage: a file "
            "of rows, a YAML file of one task, or a data set; repeat for more.",
        ),
    ] = None,
    max_forgetting: g.MaxForgetting = 2.0,
    repair: g.RepairMode = "offer",
    dry_run: o.DryRun = False,
    json: o.Json = False,
) -> None:
    """Learn one more task. A new directory needs --model, or --from-adapter.

    Without --method every task gets an adapter of its own, which is found by the text (inc-lora
    with routing=input): what forgets least without old data.

    Every task learned so far is tested again, so the table shows what was forgotten. A task that
    was learned already, such as last month's, gets one more stage. Each stage has its own budget:
    all rows are used unless --max-train and --max-eval are given, and epochs, learning_rate,
    batch_size and weights are the directory's unless --set gives others.
    """
    from nlora.continual.added import next_stage
    from nlora.continual.agreement import begun, check_method
    from nlora.continual.guard import SetAside
    from nlora.continual.learning import learn as learn_task
    from nlora.data.balance import label_counts
    from nlora.data.formats import is_rows
    from nlora.plan.budgets import LIMITS
    from nlora.plan.config import parse_config
    from nlora.plan.recommended import WHY, chosen
    from nlora.plan.resolve import choose
    from nlora.store.directory import ModelDirectory

    commits_in(model_dir)
    faults = Faults()
    new, inherited, unsaid = None, False, False
    flags = {
        "method": method,
        "model": model,
        "seed": seed,
        "max_train": max_train,
        "max_eval": max_eval,
        "plugin": plugin,
        "from_adapter": from_adapter,
        "knows": knows,
    }
    rehearsed = o.rehearsal(replay, neutral)
    exists = ModelDirectory(model_dir).exists()
    if exists and method is not None:
        faults.attempt(lambda: check_method(ModelDirectory(model_dir), method))
    told = [config, overrides, rehearsed, *(v is not None for v in flags.values())]
    if not faults.found and (any(told) or not exists):
        if config is None and exists and not (model and method):
            config = model_dir / "model.json"
            inherited = begun(ModelDirectory(model_dir))
        values = o.configuration(None, config, overrides, replay, neutral, data=data, **flags)
        if inherited:  # all rows, unless this stage is told otherwise
            values |= {name: flags[name] for name in LIMITS}
        unsaid = not (values.get("method") or values.get("from_adapter") or config)
        if unsaid:
            values = chosen(values)
        new = faults.attempt(lambda: parse_config(values, str(config or "a new model directory")))
    given = faults.attempt(lambda: o.reading(columns, encoding, skip_bad_rows)) or {}
    given |= {} if hold_out is None else {"hold_out": hold_out}
    data_of_task = faults.attempt(lambda: _task(task, name, test, labels, data, given))
    watched = [faults.attempt(lambda one=one: watched_task(one, data)) for one in watch or ()]
    if new is not None:
        faults.attempt(lambda: choose(new))
    guard = faults.attempt(lambda: g.guard_of(max_forgetting, repair))
    faults.check()
    assert data_of_task is not None
    shown = progress()
    if unsaid:
        shown.message(WHY)
    answers = label_counts(data_of_task.train, data_of_task.task.labels)
    records = ModelDirectory(model_dir).stages() if exists else []
    known = data_of_task.name in [t["name"] for record in records for t in record.tasks]
    if answers and data_of_task.task.labels is None and is_rows(task) and not known:
        shown.message(f"answers are free text; --labels auto makes the {len(answers)} in it labels")
    tested = [known for known in watched if known is not None]
    if dry_run:
        plan = next_stage(model_dir, data_of_task, new, shown, tested)
        _dry_run(model_dir, plan, guard, json)
        return
    try:
        results = learn_task(model_dir, data_of_task, new, shown, tested, guard)
    except SetAside as refused:
        if not processes.first_to_fail():
            raise
        if json:
            print_json({"in_force": False, "stage": refused.name, **refused.found})
        else:
            g.show_refusal(model_dir, refused.name, refused.found)
        raise typer.Exit(g.REFUSED) from refused
    if json:
        print_json(results)
    else:
        show_results(results)


def _dry_run(model_dir: Path, plan: Plan | None, guard: Guard | None, json: bool) -> None:
    """What the next stage would be, and what its guard would measure; None: nothing is left."""
    from dataclasses import replace

    from nlora.cli.preview import show_preview
    from nlora.continual.forecast import forecast
    from nlora.store.directory import ModelDirectory

    if plan is None:  # which was said
        if json:
            print_json({"tasks": [], "stages": []})
        return
    from nlora.continual.preview import preview  # slow, and not for what is refused

    directory = ModelDirectory(model_dir)
    seen = preview(plan, directory)
    notes = [f"{model_dir}: this would be stage {len(directory.stages()) + 1}"]
    if guard is not None:
        notes += forecast(directory, plan.stream, guard)
    show_preview(replace(seen, notes=[*seen.notes, *notes]), plan.settings(), json)


def _task(
    task: str,
    name: str | None,
    test: str | None,
    labels: str | None,
    data: Path | None,
    asked: dict[str, Any],
) -> TaskData:
    """The task that `--task` names; `asked` are fields of `Reading` that options give."""
    from nlora.data.files import read_entry, task_from_files
    from nlora.data.formats import YAML, is_rows, source, title
    from nlora.data.reading import Reading
    from nlora.data.streams import KNOWN, canonical, check_task, load_stream

    if is_rows(task) and canonical(task) not in KNOWN:
        train, here = source(task, Path()), Path()
        tests, reading = source(test, here) if test else None, Reading(**asked)
        return task_from_files(name or title(train), train, tests, labels=labels, reading=reading)
    path = Path(os.path.expanduser(task))
    own = path.suffix.lower() in YAML
    if not own:
        check_task(task, data)
    for option, value, has in (
        ("--test", test, "tests"),
        ("--labels", labels, "labels"),
        ("--name", name, "a name"),
    ):
        if value is not None:
            raise NloraError(
                f"{option} is for a file of rows as --task; '{task}' has {has} of its own"
            )
    if own:
        return read_entry(path, asked)
    if asked:
        raise NloraError(f"'{task}' is a data set of the benchmark, which is read as it is")
    stream = load_stream(task, data)
    if len(stream) != 1:
        raise NloraError(f"--task takes one task, '{task}' is a stream; use `nlora run`")
    return stream[0]
