"""How far a run is, on stderr: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console

from nlora.progress import Progress
from nlora.visible import visible

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID


class Visible(Console):
    """A console that prints texts as `visible` has them."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; texts inside of tables and the like must have been made visible before."""
        shown = [visible(one) if isinstance(one, str) else one for one in objects]
        super().print(*shown, **options)


err = Visible(stderr=True, soft_wrap=True)


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


def watched(asked: Progress | bool | None) -> Progress | None:
    """The progress that is asked for; True is that of the command line."""
    if isinstance(asked, bool):
        return progress() if asked else None
    return asked
