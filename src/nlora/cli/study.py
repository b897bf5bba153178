"""`nlora study`: single studies beside the grids of `nlora compare`."""

import json as jsonlib
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from nlora.cli import options as o
from nlora.cli.console import as_json, out, print_json, progress, show
from nlora.errors import NloraError

app = typer.Typer(help="Rows of ledgers, and studies of finished runs.", no_args_is_help=True)

Ledger = Annotated[Path, typer.Option("--out", metavar="LEDGER", help="Where the rows go.")]


@app.command("row")
def row(
    directories: Annotated[
        list[Path], typer.Argument(metavar="MODEL_DIR…", help="Model directories of finished runs.")
    ],
) -> None:
    """Print the ledger's row of each finished run, as a line of JSON."""
    from nlora.store.directory import ModelDirectory
    from nlora.study import rows

    made_by = rows.commit()
    for path in directories:
        print(as_json(rows.row(ModelDirectory(path), made_by)))


@app.command("rescale")
def rescale(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL_DIR", help="A finished run that makes one model of LoRA adapters."
        ),
    ],
    ledger: Ledger,
    scales: Annotated[
        str, typer.Option(help="What to multiply every ΔW by, with commas between.")
    ] = "0.7,0.5,0.3",
    beside: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL_DIR",
            help="A run on the same tasks: each update is scaled to its ‖ΔW‖_F there, too.",
        ),
    ] = None,
) -> None:
    """Is it sparsity, or do smaller updates forget less? Evaluate a run with its updates shrunk.

    Nothing is trained. A row per scale is added to the ledger, where `nlora table` finds it.
    """
    from nlora.store.directory import ModelDirectory

    ModelDirectory(run).config()  # before PyTorch is imported
    from nlora.study.rescaling import rescale as rows

    for found in rows(run, _numbers(scales), beside, ledger):
        _say(f"{found['cell']['method']}: {found['average_accuracy']:.1f}")


@app.command("permute")
def permute(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL_DIR", help="A finished run that makes one model of LoRA adapters."
        ),
    ],
    ledger: Ledger,
    seed: Annotated[int, typer.Option(help="Decides the permutations.", min=0, max=2**32 - 1)] = 0,
) -> None:
    """Is it where an update writes? Evaluate a run with later updates permuted in each matrix.

    Nothing is trained. A row is added to the ledger, where `nlora table` finds it.
    """
    from nlora.store.directory import ModelDirectory

    ModelDirectory(run).config()  # before PyTorch is imported
    from nlora.study.permuting import permute as permuted

    found = permuted(run, seed, ledger)
    _say(f"{found['cell']['method']}: {found['average_accuracy']:.1f}")


@app.command("exhaustion")
def exhaustion(
    out_dir: Annotated[
        Path, typer.Option("--out", help="The folder for exhaustion.jsonl and exhaustion.png.")
    ],
    tasks: Annotated[int, typer.Option(help="How many tasks there are in the end.")] = 10_000,
    size: Annotated[int, typer.Option(help="Rows and columns of the matrix.")] = 256,
    rank: Annotated[int, typer.Option(help="The rank of each update.")] = 8,
    spread: Annotated[
        float, typer.Option(help="How much rows of an update differ in size (of their logarithm).")
    ] = 0.4,
    seed: Annotated[int, typer.Option(help="Decides all that is random.")] = 0,
    adapters: Annotated[
        str | None,
        typer.Option(
            metavar="ADAPTER | MODEL_DIR", help="Take densities, rank and spread from these."
        ),
    ] = None,
    json: o.Json = False,
) -> None:
    """When does the parameter space fill up? Simulate supports of up to so many tasks."""
    from nlora.report.ledger import rounded
    from nlora.study import exhaustion as study

    given: dict[str, Any] = {"rank": rank, "spread": spread}
    if adapters is not None:
        given = study.of_adapters(adapters)
    space = study.Space(tasks=tasks, size=size, seed=seed, **given)
    out_dir.mkdir(parents=True, exist_ok=True)
    found, watch = [], progress()
    with (out_dir / "exhaustion.jsonl").open("w", encoding="utf-8") as file:
        for measured in study.simulate(space):
            if not found or measured["kind"] != found[-1]["kind"]:
                watch.message(f"simulating: {measured['kind']}")
            found.append(measured)
            file.write(jsonlib.dumps(rounded(measured, 4)) + "\n")
    last = [r for r in found if r["tasks"] == tasks]
    half = list(study.half_used(found))
    if json:
        print_json({"last": rounded(last, 4), "half_used": rounded(half, 4)})
    else:
        columns = ["kind", "density", *study.MEASURES]
        supports = [r for r in last if r["kind"] in study.KINDS]
        show(f"after {tasks} tasks", columns, [[r[c] for c in columns] for r in supports], ".4g")
        columns = ["density", "closed form", *study.KINDS]
        table = [[r[c] for c in columns] for r in half]
        show("tasks after which half of a new support is in use", columns, table, ".4g")
    try:
        study.draw(found, space, out_dir / "exhaustion.png")
    except NloraError as error:  # the data stand
        watch.message(f"no figure: {error}")


def _numbers(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(map(math.isfinite, found)):
        raise NloraError(f"--scales takes numbers with commas between them, not '{text}'")
    return found


def _say(line: str) -> None:
    out.print(line, markup=False, highlight=False)
