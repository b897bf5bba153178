"""`nlora predict`: ask a trained model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from nlora.cli import options as o
from nlora.cli.console import as_json, progress


def predict(
    model_dir: Annotated[Path, typer.Argument(help="The model directory.")],
    texts: Annotated[
        Path | None,
        typer.Argument(
            help="A .txt file with one text a line (blank lines are left out, which is said), or a "
            "file of rows with texts or messages as for `nlora learn`; - reads lines."
        ),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(help="A text itself, in place of a file; repeat for more."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="The learned task whose question is asked. Not needed where only one is learned, "
            "or with routing=input."
        ),
    ] = None,
    free: Annotated[
        bool,
        typer.Option(
            "--free", help="The text that greedy decoding gives, which may be none of the labels."
        ),
    ] = False,
    how: o.Answers = "auto",
    columns: o.Columns = None,
    encoding: o.Encoding = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the answers to a file instead of printing them.")
    ] = None,
) -> None:
    """Answer new texts: a JSON object a line with text, task and answer.

    A text is asked as the task's examples were, with its instruction and labels. Where the task has
    labels the answer is the most likely of them, with the probability of each. Where the method
    finds the task, confidence is the probability that it is this one of those learned (not that the
    answer is right; null where the task was named or none was found), unknown whether the text is
    far from every task, and alike which other tasks have such texts, so that the task is a guess.
    """
    from nlora.api.results import as_row
    from nlora.continual.answering import predict as answers
    from nlora.data.columns import parse_columns
    from nlora.data.files import read_texts
    from nlora.data.memory import InMemory
    from nlora.errors import NloraError
    from nlora.explain.answers import correct_by
    from nlora.store.atomic import write_text

    correct = correct_by(how, free)
    given = parse_columns(columns) if columns else None
    watch = progress()
    if (texts is None) == (text is None):
        raise NloraError("give either a file of texts or --text, once for each text")
    if texts is None:
        asked = read_texts(InMemory(text, "--text"))
    elif texts.exists() or str(texts) == "-":
        asked = read_texts(texts, given, encoding, watch.message)
    else:
        raise NloraError(f"no such file: {texts}; a text itself is given by --text")
    if out is not None:
        o.check_out(out)
    found = answers(model_dir, asked, task, watch, free, correct)
    plain = None if out is None else False
    lines = "".join(as_json(as_row(a), plain=plain) + "\n" for a in found)
    if out is None:
        sys.stdout.write(lines)
    else:
        write_text(out, lines)
