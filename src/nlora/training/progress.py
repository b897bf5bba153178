"""What the library tells a watcher while it works; the command line draws it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Watcher(Protocol):
    """Somebody who wants to know how far a run is."""

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


class Silent:
    """A watcher who does not care."""

    def message(self, text: str) -> None:
        """Ignore it."""

    def start(self, title: str, total: int) -> None:
        """Ignore it."""

    def advance(self, count: int = 1, **values: float) -> None:
        """Ignore it."""

    def finish(self) -> None:
        """Ignore it."""


@contextmanager
def watched(watcher: Watcher, title: str, total: int) -> Iterator[None]:
    """Announce work and its end, even when it fails."""
    watcher.start(title, total)
    try:
        yield
    finally:
        watcher.finish()
