"""The command line, called in this process."""

from typing import Any

from click.testing import Result
from typer.testing import CliRunner

from nlora.cli.app import app


def call(*arguments: object, **options: Any) -> Result:
    """`nlora ARGUMENTS`, with options of `CliRunner.invoke` such as `input` and `env`."""
    return CliRunner().invoke(app, [str(a) for a in arguments], prog_name="nlora", **options)
