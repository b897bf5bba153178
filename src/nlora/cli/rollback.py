"""`nlora rollback` and `nlora prune`: stages taken back, brought back, and removed for good."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from nlora.cli import options as o
from nlora.cli.console import out, print_json, progress
from nlora.errors import NloraError


def rollback(
    model_dir: Annotated[Path, typer.Argument(help="The model directory.")],
    to: Annotated[
        str | None,
        typer.Option(
            metavar="STAGE",
            help="The stage to go back to, by number or name (`nlora history`); 0 is the base "
            "model.  [default: the last but one]",
        ),
    ] = None,
    undo: Annotated[
        bool,
        typer.Option("--undo", help="Bring back what was set aside last, of what fits the model."),
    ] = False,
    number: Annotated[
        int | None,
        typer.Option(help="With --undo: of which rollback, as `nlora history` numbers them."),
    ] = None,
    json: o.Json = False,
) -> None:
    """Take the last stages back. They are set aside, and --undo brings them back until `prune`."""
    from nlora.api.results import undone
    from nlora.continual.history import set_aside
    from nlora.continual.taking_back import bring_back
    from nlora.continual.taking_back import rollback as take_back
    from nlora.store.directory import ModelDirectory

    if undo and to is not None:
        raise NloraError("--undo brings stages back and --to takes them back; give one of them")
    if number is not None and not undo:
        raise NloraError("--number says what --undo brings back; give that too")
    found = bring_back(model_dir, number) if undo else take_back(model_dir, to, progress())
    if json:
        print_json(found._asdict() | {"place": found.place and str(found.place)})
        return
    now = f"stage {found.last} ({found.name})" if found.last else "the base model"
    if not found.stages:
        out.print(f"{model_dir} stands at {now}, nothing to do", markup=False, highlight=False)
        return
    names = _with_verb(found.stages)
    them = "it" if len(found.stages) == 1 else "them"
    said = (
        f"{names} back; the model stands at {now}"
        if undo
        else f"the model stands at {now} again; {names} set aside in {found.place}: `nlora "
        f"rollback {model_dir} --undo` brings {them} back, `nlora prune {model_dir}` removes {them}"
    )
    out.print(said, markup=False, highlight=False)
    for one in set_aside(ModelDirectory(model_dir)) if undo else ():
        out.print(f"still {undone(one)}", markup=False, highlight=False)


def prune(
    model_dir: Annotated[Path, typer.Argument(help="The model directory.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be removed, and remove nothing.")
    ] = False,
    json: o.Json = False,
) -> None:
    """Remove all stages that `rollback` has set aside, for good."""
    from nlora.continual.taking_back import prunable
    from nlora.continual.taking_back import prune as remove

    found = prunable(model_dir) if dry_run else remove(model_dir)
    if json:
        print_json(found)
    elif found["removed"]:
        removed, size = found["removed"], found["bytes"] / 1e6
        said = (
            f"{', '.join(removed)} would be removed, {size:.1f} MB"
            if dry_run
            else f"{_with_verb(removed)} removed, {size:.1f} MB are free"
        )
        out.print(said, markup=False, highlight=False)
    else:
        out.print(f"{model_dir} has nothing set aside", markup=False, highlight=False)


def _with_verb(names: Sequence[str]) -> str:
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'}"
