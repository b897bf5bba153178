"""`nlora history`: what a model has learned, when, and what it cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nlora.cli import options as o
from nlora.cli.console import out, print_json, show


def history(
    model_dir: Annotated[Path, typer.Argument(help="The model directory.")],
    json: o.Json = False,
) -> None:
    """List the stages: data, when, accuracy then and now, forgetting, size, what is kept of data.

    Nothing is loaded, measured or written.
    """
    from nlora.continual.history import history as of
    from nlora.store.directory import ModelDirectory

    found = of(ModelDirectory(model_dir))
    if json:
        print_json(found)
        return
    columns = ["stage", "task", "when", "rows", "then", "now", "forgotten", "MB", "state"]
    title = f"{found['path']}: {found['method']} on {found['base']}, {_mb(found['bytes'])} MB"
    show(title, columns, [row for stage in found["stages"] for row in _rows(stage)])
    lost = [list(task.values()) for task in found["only_tested"]]
    if lost:
        show("", ["only tested", "before training", "now"], lost)
    for line in [*_kept(found["kept"]), *map(_undone, found["undone"])]:
        out.print(line, markup=False, highlight=False)


def _rows(stage: dict[str, Any]) -> list[list[Any]]:
    """A line per task of a stage; one also for a stage without any."""
    when = stage["when"][:10]  # the time is in the JSON
    found = []
    for task in stage["tasks"] or [{}]:
        used = (task.get("rows") or {}).get("train")
        rows = None if used is None else used[0] if used[0] == used[1] else f"{used[0]}/{used[1]}"
        name = task.get("name", stage["name"])
        numbers = [task.get(key) for key in ("then", "now", "forgotten")]
        found.append(
            [stage["stage"], name, when, rows, *numbers, _mb(stage["bytes"]), stage["state"]]
        )
    return found


def _kept(kept: dict[str, dict[str, int]]) -> list[str]:
    """What of the data lies in the directory, in words."""
    words = {"test": "test examples", "train": "training examples in the method's memory"}
    lines = []
    for kind, counts in kept.items():
        if counts:
            each = ", ".join(f"{task} {count}" for task, count in counts.items())
            lines.append(f"kept: {sum(counts.values())} {words[kind]} ({each})")
    return lines or ["kept: no example"]


def _undone(rollback: dict[str, Any]) -> str:
    return f"set aside (rollback {rollback['number']}): {', '.join(rollback['stages'])}"


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f}"
