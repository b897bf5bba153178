"""`nlora verify`: is a model directory whole, and does the model answer as it did?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nlora.cli import options as o
from nlora.cli.console import out, print_json, progress, show


def verify(
    model_dir: Annotated[Path, typer.Argument(help="The model directory.")],
    sample: Annotated[
        int, typer.Option(min=0, help="Tests of each task that are asked again; 0 loads no model.")
    ] = 50,
    json: o.Json = False,
) -> None:
    """Compare every file with its hash, load every stage, and ask a sample of the tests again.

    Nothing is written. What is wrong is listed, with exit status 2.
    """
    from nlora.continual.holding import told
    from nlora.continual.verifying import verify as check

    found = check(model_dir, sample, progress())
    if json:
        print_json(found)
        return
    if found["tasks"]:
        rows = [[t["task"], t["recorded"], t["asked"], t["same"]] for t in found["tasks"]]
        columns = ["task", "accuracy (%)", "tests asked again", "same answer"]
        show(f"{model_dir} after its last stage", columns, rows)
    loads = "load, and answers are as recorded" if found["tasks"] else "were not loaded"
    out.print(
        f"{found['files']} files are as written; {found['stages']} stages {loads}",
        markup=False,
        highlight=False,
    )
    if found["held"]:
        out.print(told(model_dir, found["held"]), markup=False, highlight=False)
