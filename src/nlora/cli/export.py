"""`nlora export`: a trained model for other programs."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nlora.cli.console import watcher


class Dtype(StrEnum):
    """Of the weights that are written."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


def export(
    model_dir: Annotated[Path, typer.Argument(help="The model directory.")],
    out: Annotated[Path, typer.Argument(help="A new folder for the model.")],
    dtype: Annotated[
        Dtype, typer.Option(help="Of the weights; 16 bits may lose small updates.")
    ] = Dtype.float32,
) -> None:
    """Write one plain Transformers model with all updates in its weights.

    For methods that `nlora methods` calls mergeable. `prompts.json` beside it tells how to ask.
    """
    from nlora.training.export import export as write

    write(model_dir, out, dtype.value, watcher())
