"""What the commands print: progress on stderr, results on stdout.

Whatever comes from data is made visible: a label must not move the cursor or colour the terminal.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console

from nlora.progress import Progress
from nlora.report.visible import visible, visible_json

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from nlora.api.result import Shown
    from nlora.report.table import Table


class Visible(Console):
    """A console that prints texts as `visible` has them."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; texts inside of tables and the like must have been made visible before."""
        shown = [visible(one) if isinstance(one, str) else one for one in objects]
        super().print(*shown, **options)


out = Visible(soft_wrap=True)
err = Visible(stderr=True, soft_wrap=True)


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


class Bars:
    """Progress bars with the current task and an estimate, for a terminal."""

    def __init__(self) -> None:
        self.bar: RichProgress | None = None
        self.task: TaskID

    def message(self, text: str) -> None:
        """A line of its own."""
        err.print(text, style="dim", markup=False, highlight=False)

    def start(self, title: str, total: int) -> None:
        """A new bar."""
        from rich import progress as p

        self.bar = p.Progress(
            p.TextColumn("{task.description}", markup=False),
            p.BarColumn(),
            p.MofNCompleteColumn(),
            p.TimeElapsedColumn(),
            p.TextColumn("left"),
            p.TimeRemainingColumn(),
            p.TextColumn("{task.fields[note]}"),
            console=err,
        )
        self.bar.start()
        self.task = self.bar.add_task(visible(title), total=total, note="")

    def advance(self, count: int = 1, **values: float) -> None:
        """Move the bar on."""
        if self.bar is not None:
            note = "  ".join(f"{name} {value:.3f}" for name, value in values.items())
            self.bar.update(self.task, advance=count, note=note)

    def finish(self) -> None:
        """Leave the bar as it is."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


class Lines:
    """Progress as plain lines every few seconds, for a log."""

    every = 10.0
    """Seconds between lines."""

    def __init__(self) -> None:
        self.title, self.total, self.done = "", 0, 0
        self.started = self.said = 0.0

    def message(self, text: str) -> None:
        """A line of its own."""
        print(visible(text), file=sys.stderr, flush=True)

    def start(self, title: str, total: int) -> None:
        """Remember what is going on."""
        self.title, self.total, self.done = title, total, 0
        self.started = self.said = time.monotonic()

    def advance(self, count: int = 1, **values: float) -> None:
        """Say how far it is, now and then."""
        self.done += count
        now = time.monotonic()
        if now - self.said >= self.every:
            self.said = now
            left = (now - self.started) / self.done * (self.total - self.done)
            notes = "".join(f"  {name} {value:.3f}" for name, value in values.items())
            self.message(f"{self.title} {self.done}/{self.total}, {left:.0f} s left{notes}")

    def finish(self) -> None:
        """Say how long it took."""
        seconds = time.monotonic() - self.started
        self.message(f"{self.title} {self.done}/{self.total} in {seconds:.0f} s")


def progress() -> Progress:
    """Bars on a terminal, lines elsewhere."""
    return Bars() if err.is_terminal else Lines()


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
    from nlora.report.shown import laid_out

    out.print(laid_out(title, columns, rows, form))
    out.print()


def show_table(table: Table) -> None:
    """A table and its notes."""
    from nlora.report.shown import cells, laid_out

    out.print(laid_out(table.title, table.columns, cells(table)))
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
