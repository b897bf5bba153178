"""`nlora table`: tables from ledgers alone."""

from pathlib import Path
from typing import Annotated

import typer

from nlora.cli.console import out, show_table
from nlora.visible import visible, visible_json


def table(
    ledgers: Annotated[
        list[Path], typer.Argument(metavar="LEDGER…", help="Files that `nlora compare` wrote.")
    ],
    tables: Annotated[
        list[str] | None,
        typer.Option(
            "--table",
            help="accuracy (Tables 1, 2 and 4 of the paper), metrics, differences, explained, "
            "explained-tasks and explained-offsets (of `nlora compare --explain`), orthogonality "
            "(Table 3), collisions, "
            "ratios (Figure 1c), kl, cost, pareto; only where asked for predictors and "
            "predictors-among (what goes with the fall of an earlier task); repeat for more.  "
            "[default: all]",
        ),
    ] = None,
    pareto: Annotated[
        bool,
        typer.Option(
            "--pareto",
            help="Only needs and cost beside accuracy; with --out a picture, too (extra figures).",
        ),
    ] = False,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="markdown, latex, csv or json.  [default: for a terminal as it is wide, else "
            "markdown]",
        ),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(metavar="A,B,…", help="Only these, by their names in the ledger."),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(help="What differences and ratios are against.  [default: inc-lora]"),
    ] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="A folder for one file per table.")
    ] = None,
) -> None:
    """Make tables from ledgers alone: accuracy, every metric, differences, geometry and cost.

    Runs of one model with one budget stand together; give several ledgers to put them side by side.
    """
    from nlora.errors import unknown
    from nlora.plan.points import split_names
    from nlora.report.formats import ENDINGS, render
    from nlora.report.tables import tables as make
    from nlora.store.atomic import write_text

    on_screen, form = form is None and out_dir is None and out.is_terminal, form or "markdown"
    if form not in ENDINGS:
        raise unknown("format", form, ENDINGS)
    named = split_names(methods) if methods else ()
    found = make(ledgers, [*(tables or ()), *(["pareto"] if pareto else [])], named, baseline)
    if on_screen:
        for made in found:
            show_table(made)
        return
    if out_dir is None:
        text = render(found, form)
        shown = visible_json(text) if form == "json" else text
        out.print(shown, end="", markup=False, highlight=False)
        return
    out_dir.mkdir(parents=True, exist_ok=True)
    seen: dict[str, int] = {}
    for made in found:
        seen[made.key] = number = seen.get(made.key, 0) + 1
        name = made.key if number == 1 else f"{made.key}-{number}"
        path = out_dir / f"{name}.{ENDINGS[form]}"
        text = render([made], form)
        write_text(path, visible_json(text) if form == "json" else visible(text))
        out.print(str(path), markup=False, highlight=False)
    if pareto:
        from nlora.paper.pareto import draw
        from nlora.report.runs import sections

        for number, section in enumerate(sections(ledgers, named), start=1):
            for drawn in draw(section, out_dir, "pareto" if number == 1 else f"pareto-{number}"):
                out.print(str(drawn), markup=False, highlight=False)
