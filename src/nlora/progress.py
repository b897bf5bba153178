"""How the library tells how far it is; the command line draws it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from nlora import processes


class Progress(Protocol):
    """What shows how far a run is: a bar, lines, or nothing."""

    def message(self, text: str) -> None:
        """Something happened, in one line."""
        ...

    def start(self, title: str, total: int) -> None:
        """Work of so many steps begins."""
        ...

    def advance(self, count: int = 1, **values: float) -> None:
        """So many steps are done; values such as the loss belong to the last."""
        ...

    def finish(self) -> None:
        """The work that was started last is over."""
        ...


class NoProgress:
    """A progress that shows nothing."""

    def message(self, text: str) -> None: ...

    def start(self, title: str, total: int) -> None: ...

    def advance(self, count: int = 1, **values: float) -> None: ...

    def finish(self) -> None: ...


@contextmanager
def shown(progress: Progress, title: str, total: int) -> Iterator[None]:
    """Announce work of `total` steps, and its end, even when it fails."""
    progress.start(title, total)
    try:
        yield
    finally:
        progress.finish()


def spoken(progress: Progress | None) -> Progress:
    """The progress where somebody wants it, and only in the process that speaks."""
    return progress if progress is not None and processes.is_main() else NoProgress()


def duration(seconds: float) -> str:
    """A time for people, rounded to what an estimate knows.

    >>> duration(7.2), duration(400.0), duration(9000.0), duration(3e5)
    ('7 s', '7 min', '2.5 h', '83 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 10 else f"{hours:.0f} h"
