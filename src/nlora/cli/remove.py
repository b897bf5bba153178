"""`nlora remove`: take a task's update out of a model, and see what that costs the others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nlora.cli import options as o
from nlora.cli.console import out, print_json, progress, show


def remove(
    model_dir: Annotated[Path, typer.Argument(help="The model directory.")],
    task: Annotated[str, typer.Argument(help="The learned task.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Measure what it would cost, and change nothing.")
    ] = False,
    plugin: o.Plugin = None,
    json: o.Json = False,
) -> None:
    """Take what a task has added out of the model, and test all others again.

    Later tasks were trained on top of it and lose what they had built on it. This is no unlearning:
    what they took over from it stays in them, and the task's own update and tests stay in the
    directory, so that `nlora rollback` can put it back.
    """
    from nlora.continual.taking_out import take_out
    from nlora.methods.registry import import_plugin

    if plugin is not None:
        import_plugin(plugin)
    found = take_out(model_dir, task, dry_run, progress())
    if json:
        print_json({"path": str(model_dir), **found._asdict()})
        return
    rows = [
        [
            row["task"],
            row["with"],
            row["without"],
            None if row["with"] is None else row["without"] - row["with"],
            "on top of it" if row["on_top"] else "",
        ]
        for row in found.rows
    ]
    if rows:
        columns = ["task", f"with '{task}'", "without", "change", "learned"]
        show(f"{model_dir}: accuracy (%)", columns, rows)
    if found.stage is None:
        said = f"nothing was changed; `nlora remove {model_dir} {task}` does it"
    else:
        said = (
            f"'{task}' is out of the model (stage {found.stage}). This is no unlearning: later "
            "tasks learned from a model that had it, and its update and tests stay in the "
            f"directory. `nlora rollback {model_dir}` puts it back"
        )
    out.print(said, markup=False, highlight=False)
