"""`nlora run`: learn a stream of tasks with one method."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlora.cli import options as o
from nlora.cli.console import print_json, progress, show_result
from nlora.cli.standing import commits_in
from nlora.errors import NloraError

if TYPE_CHECKING:
    from nlora.plan.config import RunConfig


def run(
    stream: Annotated[
        str | None,
        typer.Option(help="A stream's name, data sets separated by commas, or a YAML file."),
    ] = None,
    method: o.MethodName = None,
    model: o.Model = None,
    data: o.Data = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="The model directory to write.")
    ] = None,
    seed: o.Seed = None,
    max_train: o.MaxTrain = None,
    max_eval: o.MaxEval = None,
    evaluate: o.EvaluateMode = None,
    replay: o.Replay = None,
    neutral: o.Neutral = None,
    overrides: o.Set = None,
    recipe: o.RecipeName = None,
    config: o.ConfigFile = None,
    plugin: o.Plugin = None,
    from_adapter: o.FromAdapter = None,
    knows: o.Knows = None,
    dry_run: o.DryRun = False,
    json: o.Json = False,
) -> None:
    """Learn a stream of tasks with one method, task after task.

    A run that was stopped goes on with the same command after its last committed stage.
    """
    commits_in(out_dir)
    asked = {
        "settings": o.settings(overrides),
        "recipe": recipe,
        "config": config,
        "replay": replay,
        "neutral": neutral,
        "method": method,
        "model": model,
        "data": data,
        "seed": seed,
        "max_train": max_train,
        "max_eval": max_eval,
        "evaluate": evaluate,
        "plugin": plugin,
        "from_adapter": from_adapter,
        "knows": knows,
    }
    from nlora.api import running

    if dry_run:
        _dry_run(running.configured(stream, **asked)[0], out_dir, json)
        return
    if out_dir is None:
        running.configured(stream, **asked)  # what is wrong with these is said first
        raise NloraError("where to? give --out DIR")
    results = running.run(stream, out=out_dir, progress=progress(), **asked)
    if json:
        print_json(results.to_json())
    else:
        show_result(results)


def _dry_run(config: RunConfig, out_dir: Path | None, json: bool) -> None:
    from dataclasses import replace

    from nlora.cli.preview import show_preview
    from nlora.continual.agreement import going_on
    from nlora.plan.resolve import resolve
    from nlora.store.directory import ModelDirectory

    if out_dir is not None:
        ModelDirectory(out_dir).exists()  # or it is refused here, as the run would be
    plan = resolve(config)
    place = None if out_dir is None else going_on(plan, out_dir)
    from nlora.continual.preview import preview  # slow, and not for what is refused

    seen = preview(plan)
    if place is not None:
        seen = replace(seen, notes=[*seen.notes, place])
    show_preview(seen, plan.settings(), json)
