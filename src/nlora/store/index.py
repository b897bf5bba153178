"""The records of many stages in one file, so that a long directory opens at once.

`stages/index.json` is made of the records and never believed over them: a stage whose `stage.json`
was written since (its time, size or inode) is read from there, as all are where the index is
missing or damaged. Where there are few stages there is none.
"""

import gc
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from nlora.errors import NloraError
from nlora.store.atomic import write_bytes
from nlora.store.records import StageRecord, misnamed, read_record

FILE = "index.json"
MANY = 256
"""Fewer records are read from their own files within a tenth of a second."""
MISSED = 16
"""The index is written anew once more than one in so many records had to be read beside it."""

Like = tuple[int, int, int]
"""What tells a file that was written anew: modification time in ns, bytes, inode."""
_ENTRIES = TypeAdapter(dict[str, tuple[Like, StageRecord]])


def like(path: str | Path) -> Like:
    """What a file is like, without reading it."""
    stat = os.stat(path)
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


class Index:
    """The records of the stages in a folder, each read once as long as its file is as it was."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[str, tuple[Like, StageRecord]] | None = None
        self._missed = 0
        """Records that were read and are not in the file."""

    def record(self, name: str) -> StageRecord:
        """The record in the folder of this name. Raises NloraError as `read_record`."""
        if self._known is None:
            self._known = _read(self.folder)
        try:
            seen = like(f"{self.folder}/{name}/stage.json")
        except FileNotFoundError as error:
            raise NloraError(f"{error.filename} does not exist") from error
        if name not in self._known or self._known[name][0] != seen:
            self._known[name] = seen, read_record(self.folder / name / "stage.json")
            self._missed += 1
        return self._known[name][1]

    def forget(self) -> None:
        """Let every record be read from its own file."""
        self._known, self._missed = {}, 0

    def write(self) -> None:
        """Write the file, if there are many records and it is without too many of them.

        For who has the directory's lock. A disk that takes nothing more keeps what it has.
        """
        known = self._known or {}
        if len(known) < MANY or self._missed * MISSED <= len(known):
            return
        there = {name: entry for name, entry in known.items() if (self.folder / name).is_dir()}
        values = {name: (seen, record.model_dump()) for name, (seen, record) in there.items()}
        content = json.dumps(values, ensure_ascii=False).encode()
        with suppress(OSError):
            write_bytes(self.folder / FILE, _sum(content) + b"\n" + content)
            self._missed = 0


def _read(folder: Path) -> dict[str, tuple[Like, StageRecord]]:
    """What the index of a folder holds; nothing where it is missing or damaged."""
    try:
        kept, _, content = (folder / FILE).read_bytes().partition(b"\n")
        if kept != _sum(content):
            return {}
        with _uncollected():
            found = _ENTRIES.validate_json(content)
    except (OSError, ValidationError):
        return {}
    return {} if any(misnamed(record, name) for name, (_, record) in found.items()) else found


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the garbage collector, which would take twice the time to find that all is in use."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _sum(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
