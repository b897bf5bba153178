"""`nlora report`: a page to look at."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from nlora.cli.console import err, out
from nlora.cli.options import check_out
from nlora.errors import NloraError


def report(
    places: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN_OR_GRID…",
            help="Model directories, folders of `nlora compare`, or ledgers; finished or not.",
        ),
    ],
    page: Annotated[Path, typer.Option("--out", metavar="FILE", help="The HTML file.")] = Path(
        "report.html"
    ),
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Write it anew while runs go on, until Ctrl-C or their end."),
    ] = False,
    every: Annotated[
        int, typer.Option(min=1, help="With --watch: seconds between two looks.")
    ] = 15,
) -> None:
    """Write one HTML file: what was learned, what was forgotten, by how much, and at what cost.

    The page opens without a network: curves, accuracy matrices, tables that can be sorted,
    collisions by layer, wrong answers to read, configuration and data. It can be printed.
    """
    from nlora.page.build import TITLE, rendered
    from nlora.page.material import gather
    from nlora.store.atomic import parents, write_text

    check_out(page)
    if page.exists() and TITLE.encode() not in page.read_bytes()[:1000]:
        raise NloraError(f"{page} is there and no page of `nlora report`; choose another --out")
    names = [str(place) for place in places]
    material = gather(places)
    with parents(page):
        write_text(page, rendered(material, names, every if watch else None))
    out.print(str(page), markup=False, highlight=False)
    with suppress(KeyboardInterrupt):
        while watch and material.growing:
            time.sleep(every)
            material = gather(places)
            write_text(page, rendered(material, names, every))
    if watch:
        write_text(page, rendered(gather(places), names))
        err.print("the page stands", markup=False, highlight=False)
