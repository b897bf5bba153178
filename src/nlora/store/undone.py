"""Stages that were taken back: aside in the model directory, until they are brought back or pruned.

    undone/001/             one rollback
        undone.json         its stages, and what they were built on
        left.json           the results of what is left, until it is `results.json`
        002-name/ …         the stages

A rollback counts from when its folder appears, and is over from when that goes, each by one rename.
In between a stage that its folder names and does not hold yet (or no longer) is still among the
stages, and no reader sees it there. Whoever has the directory's lock next finishes what a killed
process has begun.
"""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from nlora.errors import NloraError
from nlora.store.atomic import draft_text, indented, naming, new_folder, sync, write_text
from nlora.store.reading import read_json

FILE, LEFT, BACK = "undone.json", "left.json", "back.json"
_ENTRY = re.compile(r"\d{3,}")
_LEFTOVER = re.compile(r"\.\d{3,}|\d{3,}-back")
_OVER = "-back"
"""Behind the number of a rollback that is over, but for the results."""


class _Told(BaseModel):
    """`undone.json`."""

    stages: list[str]
    on: dict[str, str]
    when: str


@dataclass(frozen=True)
class Rollback:
    """One rollback: its folder, and the stages that it took back, in order."""

    path: Path
    stages: Sequence[str]
    on: Mapping[str, str]
    """SHA-256 of what the stages were built on, by file."""
    when: str


class Undone:
    """The stages of a model directory that were taken back. For who has the directory's lock."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.folder = directory / "undone"
        self.stages = directory / "stages"

    def rollbacks(self) -> list[Rollback]:
        """All of them, the newest last. Raises NloraError if one cannot be read."""
        return [_read(path) for path in self._entries()]

    def hidden(self) -> set[str]:
        """What lies among the stages and is no stage, since it is on its way."""
        found = self.rollbacks() if self.folder.is_dir() else []
        return {name for one in found for name in one.stages if not (one.path / name).exists()}

    def results(self) -> Path:
        """Where the results of the model are: `results.json`, or what is about to become it."""
        over = self.folder.glob(f"*{_OVER}/{BACK}")
        left = (path / LEFT for path in self._entries())
        waiting = [path for path in (*over, *left) if path.is_file()]
        return waiting[-1] if waiting else self.directory / "results.json"

    def take_back(
        self, stages: Sequence[str], on: Mapping[str, str], when: str, results: Mapping[str, Any]
    ) -> Rollback:
        """Set stages aside. `results` are those of what is left."""
        numbers = [int(path.name) for path in self._entries()]
        name = f"{max(numbers, default=0) + 1:03d}"
        with new_folder(self.folder / name, self.folder / f".{name}") as draft:
            draft_text(draft / LEFT, indented(results))
            told = _Told(stages=list(stages), on=dict(on), when=when)
            draft_text(draft / FILE, indented(told.model_dump()))
        self.finish()
        return _read(self.folder / name)

    def bring_back(self, one: Rollback, results: Mapping[str, Any]) -> None:
        """Let the stages of the rollback be stages again. `results` are those with them."""
        try:
            write_text(one.path / BACK, indented(results))
            for name in one.stages:
                _move(one.path / name, self.stages / name)
            _move(one.path, self.folder / f"{one.path.name}{_OVER}")
        except BaseException:
            self.finish()
            raise
        self.finish()

    def prune(self) -> None:
        """Remove them all."""
        try:
            if self.folder.is_dir():
                _move(self.folder, self.folder.with_name(".undone"))
        finally:
            self.finish()

    def finish(self) -> None:
        """Finish what was begun, and remove what is left over."""
        shutil.rmtree(self.folder.with_name(".undone"), ignore_errors=True)
        for path in sorted(self.folder.iterdir()) if self.folder.is_dir() else ():
            if _LEFTOVER.fullmatch(path.name):
                if path.name.endswith(_OVER):
                    self._install(path / BACK)
                shutil.rmtree(path)
        for one in self.rollbacks():
            for path in (one.path / BACK, *one.path.glob(f".{BACK}-*")):
                path.unlink(missing_ok=True)
            for name in reversed(one.stages):
                if not (one.path / name).exists():
                    _move(self.stages / name, one.path / name)
            self._install(one.path / LEFT)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _install(self, results: Path) -> None:
        if results.is_file():
            _move(results, self.directory / "results.json")

    def _entries(self) -> list[Path]:
        paths = self.folder.iterdir() if self.folder.is_dir() else ()
        found = [p for p in paths if _ENTRY.fullmatch(p.name) and p.is_dir()]
        return sorted(found, key=lambda path: int(path.name))


def _read(path: Path) -> Rollback:
    try:
        told = _Told.model_validate(read_json(path / FILE))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise NloraError(f"{path / FILE}: '{key}': {first['msg']}") from error
    for name in told.stages:
        if not re.fullmatch(r"\d{3,}-[A-Za-z0-9._+-]+", name):
            raise NloraError(f"{path / FILE}: {json.dumps(name)} is no stage")
    return Rollback(path, told.stages, told.on, told.when)


def _move(source: Path, place: Path) -> None:
    place.parent.mkdir(exist_ok=True)
    with naming(place):
        source.replace(place)
        sync(place.parent)
        if source.parent != place.parent:
            sync(source.parent)
