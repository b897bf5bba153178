"""`nlora export`: a trained model for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from nlora.cli.console import progress


def export(
    model_dir: Annotated[Path, typer.Argument(help="The model directory.")],
    out: Annotated[Path, typer.Argument(help="A new folder for the model.")],
    dtype: Annotated[
        str,
        typer.Option(
            help="Of the weights: float32, bfloat16 or float16. 16 bits may lose small updates."
        ),
    ] = "float32",
    how: Annotated[
        str,
        typer.Option(
            "--answers",
            help="likely, or matched: also write offsets.json, an offset per label and task that "
            "makes the model answer as it did right after each (docs/explain.md).",
        ),
    ] = "likely",
) -> None:
    """Write one plain Transformers model with all updates in its weights.

    For methods that `nlora methods` calls mergeable. `prompts.json` beside it tells how to ask.
    """
    from nlora.continual.export import export as write
    from nlora.explain.answers import offsets_by

    write(model_dir, out, dtype, progress(), offsets_by(how))
