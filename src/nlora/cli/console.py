"""What the commands print: progress on stderr, results on stdout.

Whatever comes from data is made visible: a label must not move the cursor or colour the terminal.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console

from nlora.progress import Progress
from nlora.visible import visible, visible_json

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID


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
    from rich.table import Table

    table = Table(
        title=visible(title) or None, title_justify="left", show_edge=False, pad_edge=False
    )
    for i, name in enumerate(columns):
        numeric = all(isinstance(row[i], int | float | None) for row in rows) and bool(rows)
        table.add_column(visible(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value, form) for value in row))
    out.print(table)
    out.print()


def _cell(value: Any, form: str) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return format(value, form)
    return visible(str(value)).replace("[", "\\[")


def show_results(results: dict[str, Any], title: str = "") -> None:
    """The accuracy matrix and the metrics of `results.json`."""
    from nlora.report.averaged import fewer, in_words

    tasks = results["tasks"]
    rows = [["zero-shot", *results["zero_shot"]]] if results["zero_shot"] else []
    for stage, row in zip(results["stages"], results["accuracy_matrix"], strict=True):
        rows.append([f"after {stage}", *row])
    show(title or f"{results['method']}: accuracy (%)", ["", *tasks], rows)
    names = ["average_accuracy", "learning_accuracy", "forgetting"]
    names += ["backward_transfer", "forward_transfer"]
    shown = [[name.replace("_", " "), results[name]] for name in names]
    if among := results.get("among_labels"):
        name = f"average accuracy among labels{in_words(fewer(results, 'among_labels'))}"
        shown.insert(1, [name, among["average_accuracy"]])
    if off := results.get("off_list"):
        name = f"answers off the list (%){in_words(fewer(results, 'off_list'))}"
        shown.append([name, off["average"]])
    for name, value in results.get("kl", {}).items():
        if name != "matrix" and value is not None:
            told = {"own": "own task", "earlier": "earlier tasks", "only_tested": "only tested"}
            shown.append([f"KL to the model before, {told[name]}", f"{value:.3f}"])
    shown.append(["seconds", round(results["seconds"])])
    shown.append(["peak memory (MB)", results["peak_memory_bytes"] // 1_000_000])
    show("", ["metric", "value"], shown)
    lost = [[name, *values.values()] for name, values in results.get("only_tested", {}).items()]
    if lost:
        show("", ["only tested", "before training", "now", "lost"], lost)
    for line in results.get("routing", {}).get("unclear", []):
        out.print(line, style="bold yellow", markup=False, highlight=False)
