"""`nlora serve`: a model that answers over HTTP."""

from pathlib import Path
from typing import Annotated

import typer

from nlora.cli import options as o
from nlora.cli.console import progress


def serve(
    model_dir: Annotated[Path, typer.Argument(help="The model directory.")],
    host: Annotated[
        str, typer.Option(help="Where to listen; 0.0.0.0 is every address of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    name: Annotated[
        str | None,
        typer.Option(help="What `model` is called in requests.  [default: the directory's name]"),
    ] = None,
    reload: Annotated[
        bool,
        typer.Option("--reload", help="Take up stages that are learned or taken back meanwhile."),
    ] = False,
    how: o.Answers = "auto",
    max_texts: Annotated[int, typer.Option(min=1, help="Texts of one request.")] = 256,
    max_body: Annotated[int, typer.Option(min=1, help="Bytes of one request.")] = 1_000_000,
    max_tokens: Annotated[int, typer.Option(min=1, help="New tokens of one text.")] = 1024,
    batch: Annotated[int, typer.Option(min=1, help="Texts that are answered together.")] = 64,
) -> None:
    """Answer over HTTP with the model in memory: POST /predict, and OpenAI's forms for text.

    /v1/chat/completions asks as the examples of a task were asked, /v1/completions goes on from a
    text as it is; GET /v1/models lists what `model` may be, GET /health says what is served. Needs
    the extra `serve`. Nobody is asked who they are (docs/serve.md).
    """
    from nlora.serve.limits import Limits
    from nlora.serve.server import serve as run

    waiting = max(Limits.waiting, max_texts)  # a request that is allowed can always be taken
    limits = Limits(max_texts, max_body, max_tokens, batch, waiting)
    run(model_dir, progress(), host, port, name, reload, limits, how)
