"""`nlora history`: what a model has learned, when, and what it cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nlora.cli import options as o
from nlora.cli.console import print_json, show_result


def history(
    model_dir: Annotated[Path, typer.Argument(help="The model directory.")],
    json: o.Json = False,
) -> None:
    """List the stages: data, when, accuracy then and now, forgetting, size, what is kept of data.

    Nothing is loaded, measured or written.
    """
    from nlora.api.results import History
    from nlora.continual.history import history as of
    from nlora.store.directory import ModelDirectory

    found = of(ModelDirectory(model_dir))
    if json:
        print_json(found)
    else:
        show_result(History(found))
