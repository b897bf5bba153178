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
) -> None:
    """Write one plain Transformers model with all updates in its weights.

    For methods that `nlora methods` calls mergeable. `prompts.json` beside it tells how to ask.
    """
    from nlora.continual.export import export as write

    write(model_dir, out, dtype, progress())
