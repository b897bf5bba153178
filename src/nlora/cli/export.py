"""`nlora export`: a trained model for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from nlora.cli.console import progress


def export(
    source: Annotated[
        Path, typer.Argument(help="The model directory, or the folder of a LoRA adapter (PEFT).")
    ],
    out: Annotated[Path, typer.Argument(help="A new folder for the model.")],
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Of the weights: float32, bfloat16 or float16.  [default: as the base model is "
            "published]"
        ),
    ] = None,
    how: Annotated[
        str,
        typer.Option(
            "--answers",
            help="likely, or matched: also write offsets.json, an offset per label and task that "
            "makes the model answer as it did right after each (docs/explain.md); auto: only of "
            "tasks of which `nlora explain --dev` has found that it helps.",
        ),
    ] = "likely",
    max_lost: Annotated[
        float,
        typer.Option(min=0, help="Per cent of the updates that rounding to 16 bits may lose."),
    ] = 1.0,
    adapter: Annotated[
        bool,
        typer.Option("--adapter", help="Instead: one LoRA adapter (PEFT) equal to all updates."),
    ] = False,
    adapters: Annotated[
        bool,
        typer.Option(
            "--adapters",
            help="Instead: an adapter per task, for methods that answer each task with a model of "
            "its own; with the router, if there is one.",
        ),
    ] = False,
    rank: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="With --adapter or --adapters: recompress to this rank.  [default: exact, the sum "
            "of the ranks]",
        ),
    ] = None,
    consolidation: Annotated[
        str | None,
        typer.Option(
            help="Of a plain model: how the updates make it, for example ties.  [default: as they "
            "were trained]"
        ),
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER/NAME",
            help="Upload the folder to the Hugging Face Hub, too (`hf auth login` first); a new "
            "repository is private.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Of an adapter: its base model.  [default: the one that it names]"),
    ] = None,
) -> None:
    """Write one plain Transformers model with all updates in its weights, or adapters.

    For methods that `nlora methods` calls mergeable. How much of the updates rounding loses is
    measured, and too much is refused (export.json has it). `prompts.json` tells how to ask.
    """
    from nlora.api.exporting import export as write

    write(
        source,
        out,
        dtype=dtype,
        answers=how,
        max_lost=max_lost,
        adapter=adapter,
        adapters=adapters,
        rank=rank,
        consolidation=consolidation,
        push=push,
        model=model,
        progress=progress(),
    )
