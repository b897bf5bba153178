"""What the commands print: progress on stderr, results on stdout.

Whatever comes from data is made visible: a label must not move the cursor or colour the terminal.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nlora.api.watching import Visible, err, progress
from nlora.visible import visible, visible_json

__all__ = ["as_json", "err", "out", "prepare", "print_json", "progress", "show", "show_result"]
__all__ += ["show_results", "show_table", "visible", "visible_json"]

if TYPE_CHECKING:
    from nlora.api.result import Shown
    from nlora.report.table import Table


out = Visible(soft_wrap=True)


class _Warnings(logging.Handler):
    """Warnings of nlora's own as plain lines on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        print(visible(record.getMessage()), file=sys.stderr, flush=True)


def prepare() -> None:
    """Let nothing that is printed be lost: what a terminal cannot show is written out."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    log = logging.getLogger("nlora")
    if not log.handlers:
        log.addHandler(_Warnings(logging.WARNING))


def print_json(value: Any) -> None:
    """One JSON value on stdout, and nothing else."""
    print(as_json(value, indent=1))


def as_json(value: Any, indent: int | None = None, plain: bool | None = None) -> str:
    r"""A value as JSON that means the same on any terminal: `plain` is in ASCII alone.

    By default where stdout cannot show all characters.

    >>> print(as_json({"é": "\x9b1m"}, plain=False))
    {"é": "\u009b1m"}
    """
    if plain is None:
        plain = "utf" not in (getattr(sys.stdout, "encoding", None) or "utf-8").lower()
    return visible_json(json.dumps(value, indent=indent, ensure_ascii=plain))


def show(title: str, columns: list[str], rows: list[list[Any]], form: str = ".1f") -> None:
    """A table; None is shown as a dash, numbers stand on the right, fractions as `form` says."""
    from nlora.report.shown import fitted

    for part in fitted(title, columns, rows, out.width, form):
        out.print(part)
        out.print()


def show_table(table: Table) -> None:
    """A table and its notes."""
    from nlora.report.shown import cells, fitted

    first, *more = fitted(table.title, table.columns, cells(table), out.width)
    out.print(first)
    for part in more:
        out.print()
        out.print(part)
    for note in table.notes:
        out.print(note, markup=False, highlight=False)
    out.print()


def show_result(result: Shown) -> None:
    """What a function of the API returned."""
    for table in result.tables():
        show_table(table)


def show_results(results: Mapping[str, Any]) -> None:
    """The accuracy matrix and the metrics of `results.json`."""
    from nlora.api.results import Results

    show_result(Results(results))
