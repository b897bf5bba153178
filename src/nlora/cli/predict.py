"""`nlora predict`: ask a trained model."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from nlora.cli.console import progress
from nlora.errors import NloraError


def predict(
    model_dir: Annotated[Path, typer.Argument(help="The model directory.")],
    texts: Annotated[
        Path,
        typer.Argument(
            help="A .txt file with one text a line, a .jsonl, .csv or .json file whose rows have "
            "text; - reads lines."
        ),
    ],
    task: Annotated[
        str | None,
        typer.Option(
            help="The learned task whose question is asked. Not needed where only one is learned, "
            "or with routing=input."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the answers to a file instead of printing them.")
    ] = None,
) -> None:
    """Answer new texts: a JSON object a line with text, task and answer.

    A text is asked as the task's examples were, with its instruction and labels.
    """
    from nlora.continual.answering import predict as answers
    from nlora.data.files import read_texts
    from nlora.store.atomic import write_text

    asked = read_texts(texts)
    if out is not None and out.is_dir():
        raise NloraError(f"{out} is a folder; --out takes a file")
    found = answers(model_dir, asked, task, progress())
    lines = "".join(json.dumps(a._asdict(), ensure_ascii=False) + "\n" for a in found)
    if out is None:
        sys.stdout.write(lines)
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, lines)
