"""`nlora evaluate`: measure a trained model again, also on new data or as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nlora.cli import options as o
from nlora.cli.console import as_json, print_json, progress, show_result


def evaluate(
    model_dir: Annotated[Path, typer.Argument(help="The model directory.")],
    task: Annotated[
        str | None,
        typer.Option(
            help="This task alone, answered by the model as it stood for it where the method keeps "
            "one per task, as by `predict --task`.  [default: every task]"
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="A file of rows to test with, as for `nlora learn`, instead of the task's own "
            "tests."
        ),
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(
            metavar="STAGE",
            help="The model as it was after this stage, by number or name (`nlora history`); 0 is "
            "the base model.  [default: the last]",
        ),
    ] = None,
    columns: o.Columns = None,
    encoding: o.Encoding = None,
    skip_bad_rows: o.SkipBadRows = False,
    plugin: o.Plugin = None,
    out: Annotated[
        Path | None, typer.Option(help="Write figures and every answer to this JSON file.")
    ] = None,
    json: o.Json = False,
) -> None:
    """Measure a model: its tasks' own tests or a new file, now or as it was after a stage.

    Nothing is written unless --out is given.
    """
    from nlora.continual.evaluating import evaluate as measure
    from nlora.data.formats import source
    from nlora.data.reading import Reading
    from nlora.errors import NloraError
    from nlora.methods.registry import import_plugin
    from nlora.store.atomic import write_text

    if data is None and (columns or encoding or skip_bad_rows):
        raise NloraError(
            "--columns, --encoding and --skip-bad-rows say how --data is read; give that too"
        )
    if out is not None:
        o.check_out(out)
    if plugin is not None:
        import_plugin(plugin)
    reading = Reading(**o.reading(columns, encoding, skip_bad_rows))
    where = None if data is None else source(data, Path())
    found = measure(model_dir, task, where, after, reading, progress())
    if out is not None:
        write_text(out, as_json(found, indent=1, plain=False) + "\n")
    if json:
        print_json({name: value for name, value in found.items() if name != "answers"})
    else:
        from nlora.api.results import Evaluation

        show_result(Evaluation(found))
