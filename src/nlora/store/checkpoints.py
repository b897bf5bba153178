"""The checkpoint of a stage in training: the newest one, whole, or none.

    checkpoints/001-NAME/step-120/
        checkpoint.json     what it is of, and the SHA-256 of every other file
        …                   what `training.checkpoint` keeps

A checkpoint appears by one rename, and the one before is removed then. All are removed when the
stage is committed.
"""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nlora.checksum import sha256
from nlora.errors import NloraError
from nlora.store.atomic import draft_text, new_folder
from nlora.store.reading import Kind, check, read_json

FILE = "checkpoint.json"
_STEP = re.compile(r"step-(\d{1,12})")


class CheckpointFile(Kind):
    """`checkpoint.json`."""

    of: dict[str, Any]
    files: dict[str, str]


class Checkpoints:
    """Those of one stage, in a folder of their own. `of` is what they are of, as JSON."""

    def __init__(self, folder: Path, of: Mapping[str, Any]) -> None:
        self.folder = folder
        self.of = dict(of)

    def newest(self) -> Path | None:
        """The folder of the newest one, or None where there is none.

        Raises NloraError if it is of something else, was changed, or cannot be read.
        """
        found = self._steps()
        if not found:
            return None
        place = found[max(found)]
        try:
            told = check(CheckpointFile, read_json(place / FILE), place / FILE)
        except OSError as error:
            raise NloraError(f"{place / FILE} cannot be read: {error.strerror}") from error
        files = told.files
        for name, value in self.of.items():
            if told.of.get(name) != value:
                raise NloraError(f"{place} is of another {name}")
        present = {p.name for p in place.iterdir()} - {FILE}
        if present != files.keys() or any(sha256(place / n) != h for n, h in files.items()):
            raise NloraError(f"{place} was changed or damaged")
        return place

    def write(self, step: int, fill: Callable[[Path], None]) -> None:
        """Write the checkpoint after a step (`fill` fills its folder), and remove all others."""
        place, before = self.folder / f"step-{step}", self._steps()
        if step in before:  # not used, or this step would not come again
            shutil.rmtree(before.pop(step))
        with new_folder(place, self.folder / f".step-{step}") as draft:
            fill(draft)
            files = {path.name: sha256(path) for path in sorted(draft.iterdir())}
            draft_text(draft / FILE, json.dumps({"of": self.of, "files": files}, indent=1))
        for other in before.values():
            shutil.rmtree(other, ignore_errors=True)

    def _steps(self) -> dict[int, Path]:
        paths = self.folder.iterdir() if self.folder.is_dir() else ()
        return {int(m[1]): p for p in paths if (m := _STEP.fullmatch(p.name)) and p.is_dir()}
