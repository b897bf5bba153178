"""`nlora copy`: a model directory handed on, as a folder or one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nlora.cli import options as o
from nlora.cli.console import out as console
from nlora.cli.console import print_json, progress


def copy(
    source: Annotated[
        Path, typer.Argument(help="A model directory, or an archive that `nlora copy` has written.")
    ],
    out: Annotated[
        Path, typer.Argument(help="A new folder, or an archive (.tar, .tar.gz or .tgz).")
    ],
    model: Annotated[
        str | None,
        typer.Option(help="Where the base model lies here, if it is a folder; it must be the same"),
    ] = None,
    plugin: Annotated[
        Path | None, typer.Option(help="Where the file of the method lies here, if it has one.")
    ] = None,
    json: o.Json = False,
) -> None:
    """Copy a model so that another person can go on from it, without paths of this machine.

    Configuration, stages and results are copied, compared with their hashes on the way. The tests
    of each task and what the method keeps of training examples go along: they are your data.
    """
    from nlora.continual.copying import copy as write

    found = write(source, out, model, None if plugin is None else str(plugin), progress())
    if json:
        print_json(found)
        return
    kept = {kind: sum(counts.values()) for kind, counts in found["kept"].items()}
    console.print(
        f"{out}: {found['stages']} stages, {found['bytes'] / 1e6:.1f} MB, with {kept['test']} test "
        f"examples and {kept['train']} training examples",
        markup=False,
        highlight=False,
    )
