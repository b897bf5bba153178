"""A stage that is trained and not in force, until somebody accepts or discards it.

    pending/as-trained/003-name/    the whole stage, as it would stand in `stages`
    pending/repaired/003-name/      the same with its update scaled back, where that helps

The folder appears by one rename, and an accepted stage takes its place by one, so whoever is killed
leaves it as before or as after. What is left of a pending stage then goes with the next lock.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from nlora.checksum import sha256
from nlora.errors import NloraError
from nlora.store.atomic import naming, new_folder, sync
from nlora.store.records import StageRecord, fill, read_record

if TYPE_CHECKING:
    from nlora.store.directory import ModelDirectory

PENDING = "pending"
TRAINED, REPAIRED = "as-trained", "repaired"
_ON = "on"
"""In the notes of a pending stage: the stage before it, with the hash of its record."""


class Version(NamedTuple):
    """A stage to be written: its record, and what fills its folder."""

    record: StageRecord
    write: Callable[[Path], None]


class Pending:
    """The pending stage of a model directory, if there is one. To be used under its lock."""

    def __init__(self, directory: ModelDirectory) -> None:
        self.directory = directory
        self.path = directory.path / PENDING

    def record(self, version: str = TRAINED) -> StageRecord | None:
        """The record of a version of the stage; None where there is none."""
        folders = sorted((self.path / version).glob("[0-9]*"))
        if not folders or self._left_over():
            return None
        return read_record(folders[0] / "stage.json")

    def stages(self) -> list[tuple[Path, StageRecord]]:
        """The folder and record of each version of the stage that is there."""
        there = {version: self.record(version) for version in (TRAINED, REPAIRED)}
        return [(self.path / v / r.folder, r) for v, r in there.items() if r is not None]

    def check_none(self) -> None:
        """Raise NloraError if there is one: nothing is learned on top of what may yet be."""
        record = self.record()
        if record is not None:
            raise NloraError(
                f"{self.directory.path} holds '{record.name}', which is trained and not in force; "
                f"`nlora accept {self.directory.path}` or `nlora discard {self.directory.path}` "
                "first"
            )

    def keep(self, versions: Mapping[str, Version]) -> None:
        """Write the versions of a stage, all at once."""
        for record, _ in versions.values():
            record.notes[PENDING] = {_ON: self._last()}
        with new_folder(self.path, self.path.with_name(f".{PENDING}")) as draft:
            for name, (record, write) in versions.items():
                folder = draft / name / record.folder
                folder.mkdir(parents=True)
                fill(folder, record, write)

    def accept(self, version: str = TRAINED) -> StageRecord:
        """Let a version be the directory's next stage.

        Raises NloraError where there is none, a file was changed, or other stages came meanwhile.
        """
        record = self.record(version)
        if record is None:
            raise NloraError(f"{self.path / version} holds no stage")
        if record.notes.get(PENDING, {}).get(_ON) != self._last():
            raise NloraError(
                f"{self.directory.path} is not what '{record.name}' was trained on top of any "
                "more; `nlora discard` removes it, and `nlora learn` trains it anew"
            )
        shelf = self.directory.shelf(f"{PENDING}/{version}")
        shelf.verify(record)
        source, place = shelf.stage_path(record), self.directory.stage_path(record)
        place.parent.mkdir(exist_ok=True)
        source.rename(place)
        with naming(place):
            sync(place.parent)
            sync(source.parent)
        self.remove()
        return record

    def remove(self) -> None:
        """Remove the pending stage in all its versions, if there is one."""
        draft = self.path.with_name(f".{PENDING}")
        shutil.rmtree(draft, ignore_errors=True)
        if self.path.is_dir():
            self.path.rename(draft)
            try:
                sync(draft.parent)
            finally:
                shutil.rmtree(draft, ignore_errors=True)  # what stays goes with the next lock

    def clear(self) -> None:
        """Remove what a process that was killed has left."""
        shutil.rmtree(self.path.with_name(f".{PENDING}"), ignore_errors=True)
        if self._left_over():
            self.remove()

    def _left_over(self) -> bool:
        """Whether one of the versions was accepted: no other can be any more."""
        versions = [self.path / name for name in (TRAINED, REPAIRED)]
        return any(path.is_dir() and not list(path.glob("[0-9]*")) for path in versions)

    def _last(self) -> list[str]:
        """The last stage, and the hash of its record."""
        records = self.directory.stages()
        if not records:
            return []
        return [records[-1].folder, sha256(self.directory.stage_path(records[-1]) / "stage.json")]
