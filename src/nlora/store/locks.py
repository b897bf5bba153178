"""Locks that leave nothing behind: of what is written once, or for a moment."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from nlora.errors import NloraError
from nlora.store.atomic import parents

PATIENCE = 60.0
"""Seconds that a process waits for another that writes for a moment."""


@contextmanager
def held(place: Path, patience: float = 0.0) -> Iterator[None]:
    """Be the only process that writes this file or folder, by a lock beside it that goes.

    Raises NloraError if another process has the lock for longer than `patience` seconds. A process
    that waits for a lock file that is removed meanwhile takes a new one (filelock sees to it).
    """
    path = place.with_name(f".{place.name}.lock")
    lock = FileLock(path, timeout=patience)
    with parents(path):
        try:
            lock.acquire()
        except Timeout as error:
            raise NloraError(f"{place} is in use by another process") from error
        except OSError as error:
            error.filename = str(place)
            raise
        try:
            yield
        finally:
            with suppress(OSError):  # Windows keeps a file that is open
                path.unlink()
            lock.release()
