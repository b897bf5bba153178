"""`nlora learn`: one more task for a model that keeps what it knows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlora import endings
from nlora.cli import guarded as g
from nlora.cli import options as o
from nlora.cli.console import print_json, progress, show_result
from nlora.cli.standing import commits_in

if TYPE_CHECKING:
    from nlora.api.learning import Request
    from nlora.progress import Progress


def learn(
    model_dir: Annotated[Path, typer.Argument(help="The model directory.")],
    task: Annotated[
        str,
        typer.Option(
            help="A data set of the benchmark, a YAML file of one task, or a file of rows: JSON, "
            "CSV, Parquet, a folder saved by `datasets`, hf://owner/name, …; or FILE:function of "
            "--plugin FILE.py, which returns rows"
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
            metavar="[NAME[:LABELS]=]FILE",
            help="A task that is only tested, before and after this and every later stage: a file "
            "of rows, a YAML file of one task, or a data set; repeat for more. "
            "NAME:auto=FILE has the labels in it, NAME:A,B=FILE these; else answers are free text.",
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
    from nlora.api.learning import requested
    from nlora.api.tasks import named_task
    from nlora.continual.guard import SetAside
    from nlora.data.task import TaskData

    commits_in(model_dir)
    shown = progress()

    def named() -> TaskData:
        asked = o.reading(columns, encoding, skip_bad_rows)
        asked |= {} if hold_out is None else {"hold_out": hold_out}
        return named_task(task, data, name, test, labels, **asked)

    asked = requested(
        model_dir,
        named,
        model=model,
        method=method,
        data=data,
        seed=seed,
        max_train=max_train,
        max_eval=max_eval,
        replay=replay,
        neutral=neutral,
        settings=o.settings(overrides),
        config=config,
        plugin=plugin,
        from_adapter=from_adapter,
        knows=knows,
        watch=watch or (),
        max_forgetting=max_forgetting,
        repair=repair,
        progress=shown,
    )
    _tell_free_text(task, asked, shown)
    if dry_run:
        _dry_run(asked, shown, json)
        return
    try:
        results = asked.done(shown)
    except SetAside as refused:
        if not endings.first_to_fail():
            raise
        if json:
            print_json({"in_force": False, "stage": refused.name, **refused.found})
        else:
            g.show_refusal(model_dir, refused.name, refused.found)
        raise typer.Exit(g.REFUSED) from refused
    if json:
        print_json(results.to_json())
    else:
        show_result(results)


def _tell_free_text(task: str, asked: Request, shown: Progress) -> None:
    """Say how answers become labels, where few of them are free text."""
    from nlora.data.balance import label_counts, told_free
    from nlora.data.formats import is_rows
    from nlora.store.directory import ModelDirectory

    data, directory = asked.task, ModelDirectory(asked.out)
    answers = label_counts(data.train, data.task.labels)
    records = directory.stages() if directory.exists() else []
    known = data.name in [t["name"] for record in records for t in record.tasks]
    if answers and data.task.labels is None and is_rows(task) and not known:
        shown.message(told_free(answers))


def _dry_run(asked: Request, shown: Progress, json: bool) -> None:
    """What the next stage would be, and what its guard would measure."""
    from dataclasses import replace

    from nlora.cli.preview import show_preview
    from nlora.continual.added import next_stage
    from nlora.continual.forecast import forecast
    from nlora.store.directory import ModelDirectory

    plan = next_stage(asked.out, asked.task, asked.config, shown, asked.watched)
    if plan is None:  # nothing is left, which was said
        if json:
            print_json({"tasks": [], "stages": []})
        return
    from nlora.continual.preview import preview  # slow, and not for what is refused

    directory = ModelDirectory(asked.out)
    seen = preview(plan, directory)
    notes = [f"{asked.out}: this would be stage {len(directory.stages()) + 1}"]
    notes += forecast(directory, plan.stream, asked.guard)
    show_preview(replace(seen, notes=[*seen.notes, *notes]), plan.settings(), json)
