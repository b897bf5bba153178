"""`nlora explain`: what a model has lost of its tasks, and why."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nlora.cli import options as o
from nlora.cli.console import out, print_json, progress, show_table

if TYPE_CHECKING:
    from nlora.report.table import Table

Texts = Annotated[int, typer.Option(help="How many texts of each kind, at most.")]
Neutral = Annotated[
    Path | None,
    typer.Option(help="A file of neutral texts, a text a line (or .gz), for offsets from them."),
]


def explain(
    model_dir: Annotated[Path, typer.Argument(help="The model directory, finished or not.")],
    texts: Texts = 100,
    kinds: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,…",
            help="Texts that offsets come from: train, dev, test, newest, neutral, self, "
            "by-label, content-free; by default all but by-label, neutral with --neutral.",
        ),
    ] = None,
    neutral: Neutral = None,
    every_stage: Annotated[
        bool, typer.Option("--every-stage", help="After every later stage, not only the last.")
    ] = False,
    probe: Annotated[
        int,
        typer.Option(
            help="Training examples from which a linear probe learns to read hidden states "
            "(scikit-learn); 0 for no probe."
        ),
    ] = 200,
    shift: Annotated[
        int,
        typer.Option(
            help="Test texts whose hidden states are compared before and after each later stage; "
            "0 for none."
        ),
    ] = 60,
    gradients: Annotated[
        int,
        typer.Option(
            help="Training examples of each task whose gradients are compared before each later "
            "stage; 0 for none."
        ),
    ] = 32,
    relearn: Annotated[
        int,
        typer.Option(help="Learn so many examples of each earlier task again, on a copy (10)."),
    ] = 0,
    dev: Annotated[
        bool,
        typer.Option(
            "--dev",
            help="Ask dev examples instead of the test's, to choose by (or, without a dev split, "
            "training examples that were not used).",
        ),
    ] = False,
    stream: Annotated[
        str | None,
        typer.Option(
            help="Where the training examples are, if not where the folder was begun with them: a "
            "stream's name or YAML file."
        ),
    ] = None,
    data: o.Data = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="A folder for the tables as Markdown and CSV.")
    ] = None,
    json: o.Json = False,
) -> None:
    """Say what was lost of each task after later ones: bias of the answer, or what was known?

    The loss is split into parts that add up: answers that are none of the labels, bias that an
    offset per label takes away, what a linear probe still reads out, and what is gone. How much of
    what was learned is left is measured from a model that never learned the task. What is measured
    is kept in MODEL_DIR/explain, so the same command goes on after a stop and costs nothing once
    it is done. docs/explain.md says what each column means.
    """
    from nlora.explain.asked import Options
    from nlora.explain.conclusion import conclusion
    from nlora.explain.tables import tables
    from nlora.plan.points import split_names

    given: dict[str, Any] = {} if kinds is None else {"kinds": tuple(split_names(kinds))}
    options = Options(
        texts=texts,
        neutral=neutral,
        every_stage=every_stage,
        probe=probe,
        relearn=relearn,
        shift=shift,
        gradients=gradients,
        on_dev=dev,
        **given,
    ).checked()
    from nlora.explain.explain import explain as run  # slow, and not for what is refused

    found = run(model_dir, options, progress(), stream, data)
    made = tables(found)
    if out_dir is not None:
        _write(made, out_dir)
    if json:
        print_json(found)
        return
    for table in made:
        show_table(table)
    if said := conclusion(found):
        _say(said)
    if not made and not (dev and not found["tasks"]):
        _say("there is nothing to explain: no task was learned before the last stage")


def _write(made: "list[Table]", out_dir: Path) -> None:
    from nlora.report.formats import ENDINGS, render
    from nlora.store.atomic import write_text

    out_dir.mkdir(parents=True, exist_ok=True)
    for table in made:
        for form in ("markdown", "csv"):
            write_text(out_dir / f"{table.key}.{ENDINGS[form]}", render([table], form))


def _say(line: str) -> None:
    out.print(line, markup=False, highlight=False)
