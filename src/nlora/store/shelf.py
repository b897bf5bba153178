"""Committed stages side by side in a folder: written whole, read, compared with their hashes."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nlora.checksum import sha256
from nlora.errors import NloraError
from nlora.store.atomic import new_folder
from nlora.store.index import Index, Like, like
from nlora.store.manifests import Manifests, check_manifests, link
from nlora.store.reading import Kind, check, parsed, read_json, read_text
from nlora.store.record_values import check_names
from nlora.store.records import (
    VALUES,
    AnswerRow,
    StageRecord,
    StepRow,
    TestRow,
    fill,
    taken_out,
)


class Shelf:
    """The stages in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index = Index(folder)
        """Records that were read, with what their files were like."""
        self._verified: dict[Path, Like] = {}
        """Files that were found whole, as they were then: they are read once."""

    def hidden(self) -> set[str]:
        """Names of what lies among the stages and is none."""
        return set()

    def stages(self) -> list[StageRecord]:
        """The committed stages in order, without the zero-shot evaluation."""
        return [r for r in self._records() if r.index > 0]

    def zero_shot(self) -> StageRecord | None:
        """The evaluation before any training, if there was one."""
        return next((r for r in self._records() if r.index == 0), None)

    def _records(self) -> list[StageRecord]:
        """All records, for whoever asks to change as they like but for what is in their fields."""
        if not self.folder.is_dir():
            return []
        hidden = self.hidden()
        with os.scandir(self.folder) as found:
            names = [e.name for e in found if e.name[0].isdecimal() and e.is_dir()]
        records = [self.index.record(name) for name in names if name not in hidden]
        records.sort(key=lambda r: r.index)
        trained = [record for record in records if record.index > 0]
        numbers = [record.index for record in trained]
        if numbers != list(range(1, len(numbers) + 1)):
            raise NloraError(f"{self.folder}: stages are missing, found {numbers}")
        check_manifests(self.folder, trained)
        check_names(self.folder, trained)
        link(trained)
        return [record.model_copy() for record in records]

    def stage_path(self, record: StageRecord) -> Path:
        """The folder of a committed stage."""
        return self.folder / record.folder

    def tests(self) -> dict[str, list[dict[str, str]]]:
        """The test examples (`text`, `label`) of every task learned or only tested, by task.

        In the order of the stages that brought them. Raises NloraError if a file was changed or is
        missing.
        """
        found: dict[str, list[dict[str, str]]] = {}
        for record in self._records():
            for task, rows in self.tests_of(record).items():
                found.setdefault(task, []).extend(rows)
        return found

    def tests_of(self, record: StageRecord) -> dict[str, list[dict[str, str]]]:
        """The test examples (`text`, `label`) that a stage brought, by task.

        Raises NloraError if the file was changed or is missing.
        """
        if not record.tasks and "test.jsonl" not in record.files:
            return {}
        return self._by_task(record, "test.jsonl", TestRow)

    def predictions(self, record: StageRecord) -> dict[str, list[dict[str, Any]]]:
        """Every answer that was given after a stage, by task, in the order of its tests.

        Raises NloraError if the file was changed or is missing.
        """
        return self._by_task(record, "predictions.jsonl", AnswerRow)

    def _by_task(self, record: StageRecord, name: str, kind: type[Kind]) -> dict[str, Any]:
        found: dict[str, list[dict[str, Any]]] = {}
        for row in self.rows(record, name, kind):
            found.setdefault(row["task"], []).append(row)
        return found

    def rows(self, record: StageRecord, name: str, kind: type[Kind]) -> Iterator[dict[str, Any]]:
        """The lines of a JSONL file of a stage.

        Raises NloraError if it was changed or is missing, or for a line that is not of this kind.
        """
        path = self.verified(record, name)
        # Only "\n" ends a line: str.splitlines would also cut at U+2028 inside a text.
        lines = read_text(path).removesuffix("\n").split("\n")
        for number, line in enumerate(lines if lines != [""] else (), start=1):
            row = parsed(line, f"{path}, line {number}")
            check(kind, row, f"{path}, line {number}")
            yield row

    def steps(self, record: StageRecord) -> Iterator[dict[str, Any]]:
        """The numbers of each optimiser step of a stage; none where nothing was trained."""
        if "losses.jsonl" in record.files:
            yield from self.rows(record, "losses.jsonl", StepRow)

    def remembered(self, record: StageRecord) -> dict[str, Any]:
        """What the method remembered after a stage, without its tensors; none of earlier versions.

        Raises NloraError if the file was changed.
        """
        name = f"state/{VALUES}"
        if name not in record.files:
            return {}
        return read_json(self.verified(record, name))

    def update_paths(
        self,
        stage: int | None = None,
        known: Sequence[StageRecord] | None = None,
        verified: bool = True,
    ) -> list[Path]:
        """Folders of the updates that make up the model after a stage, in order.

        The last stage by default; none after stage 0. `known` are the records, where they were read
        already; what one of them has taken out is left out. Raises NloraError if a file was changed
        or is missing, where these are to be `verified`.
        """
        records = self.stages() if known is None else known
        if not records:
            return []
        out, by_name = taken_out(records), {record.folder: record for record in records}
        manifest = Manifests(records).after(len(records) if stage is None else stage)
        left = [name for name in manifest if name not in out]
        for name in left if verified else ():
            self.verify(by_name[name])
        return [self.update_path(name) for name in left]

    def update_path(self, name: str) -> Path:
        """The folder of the update of one stage of a manifest."""
        return self.folder / name / "update"

    def verify(self, record: StageRecord) -> None:
        """Compare a stage's files with their hashes. Raises NloraError naming the first bad one."""
        for name in record.files:
            self._verify(record, name)

    def verified(self, record: StageRecord, name: str) -> Path:
        """The path of a file of a stage. Raises NloraError if it was changed or is missing."""
        self._verify(record, name)
        return self.stage_path(record) / name

    def _verify(self, record: StageRecord, name: str) -> None:
        self.check_file(self.stage_path(record), record, name)

    def check_file(self, folder: Path, record: StageRecord, name: str) -> None:
        """Compare a file of a stage that lies in this folder with its hash. Raises NloraError."""
        path = folder / name
        if not path.is_file():
            raise NloraError(f"{path} is missing")
        seen = like(path)
        if self._verified.get(path) == seen:
            return
        if sha256(path) != record.files.get(name):
            raise NloraError(f"{path} was changed or damaged: its hash is not the recorded one")
        self._verified[path] = seen

    def commit(self, record: StageRecord, write: Callable[[Path], None]) -> None:
        """Write a stage (`write` fills its folder) and let it appear by one rename."""
        place, draft = self.folder / record.folder, self.folder / f".{record.folder}"
        with new_folder(place, draft):
            fill(draft, record, write)

    def adopt(
        self,
        other: "Shelf",
        record: StageRecord,
        change: Callable[[Path], object] = lambda folder: None,
        **changes: Any,
    ) -> None:
        """Commit a copy of a stage of another directory, these fields of its record changed.

        `change` may change the copied files before they are hashed. Raises NloraError if one of
        the other's files was changed or is missing.
        """
        other.verify(record)

        def write(folder: Path) -> None:
            for name in record.files:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(other.stage_path(record) / name, folder / name)
            change(folder)

        self.commit(record.model_copy(update=changes), write)
