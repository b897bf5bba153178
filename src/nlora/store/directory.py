"""The model directory: the one place where a run's files are written and read.

    model.json          what the model is: base model, method, settings, stream, seed, limits
    stages/001-name/    one committed stage each
        stage.json          task, manifest of updates, accuracies, timing, hashes of all files
        losses.jsonl        every loss term by name, per optimiser step
        test.jsonl          the task's test examples, so that a later stage can measure forgetting
        predictions.jsonl   every answer given in the evaluation after the stage
        update/             the update itself: a PEFT adapter, or safetensors
        state/              what the method keeps for its next stage, where it keeps anything
    checkpoints/        of the stage in training (`store.checkpoints`), until it is committed
    undone/             stages that were taken back (`store.undone`)
    results.json        derived from the stages
    watched/001-name/   a task that is only tested, added by `learn`: record, tests and answers of
                        the model as it stood then
    pending/            a stage that is trained and not in force (`store.pending`)
    logs/               of a tracker, where one is asked for
    explain/            what `nlora explain` has measured and found

A stage is written beside its place and appears by one rename; `000-zero-shot` holds the model's
answers before any training, where they were asked for. One process at a time may write.
"""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from nlora.checksum import sha256
from nlora.errors import NloraError
from nlora.store.atomic import check_creatable, indented, naming, new_folder, write_text
from nlora.store.documents import read_document, read_results, sealed_document
from nlora.store.pending import PENDING, Pending
from nlora.store.reading import Kind, check, parsed, read_json, read_text
from nlora.store.records import (
    VALUES,
    AnswerRow,
    StageRecord,
    StepRow,
    TestRow,
    check_manifests,
    fill,
    read_record,
    stage_folder,
    taken_out,
)
from nlora.store.undone import Undone

__all__ = ["ModelDirectory", "StageRecord", "stage_folder"]

WATCHED = "watched"
"""The folder of tasks that are only tested, each like a stage without an update."""
_FILES = {"model.json", "results.json", ".lock"}
_FOLDERS = {"stages", WATCHED, PENDING, "checkpoints", "undone", "logs", "explain"}
# What a killed process may leave: half a file (with its process's number), half a stage.
_FILE_DRAFT = re.compile(r"\.(model|results)\.json-\d+")
_STAGE_DRAFT = re.compile(r"\.\d{3,}-.*")


class ModelDirectory:
    """A model directory. Use `locked` around everything that writes."""

    def __init__(self, path: Path, stages: str = "stages") -> None:
        self.path = path
        self._stages = path / stages
        self.undone = Undone(path)
        """Stages that were taken back."""
        self.pending = Pending(self)
        """A stage that is not in force, if there is one."""
        self._verified: dict[Path, tuple[int, ...]] = {}
        """Files that were found whole, as they were then: they are read once."""
        self._read: dict[Path, tuple[tuple[int, ...], StageRecord]] = {}
        """Records with what their files were like: one that did not change is not read again."""

    def shelf(self, name: str) -> "ModelDirectory":
        """The same directory, whose stages are in another folder than `stages`."""
        return ModelDirectory(self.path, name)

    def watched(self) -> list[StageRecord]:
        """Of each task that `learn` was told to test only, what the model answered then."""
        return self.shelf(WATCHED).stages()

    def exists(self) -> bool:
        """Whether there is a model here. Raises NloraError if the place holds something else."""
        if (self.path / "model.json").is_file():
            return True
        if self.path.is_dir():
            foreign = [p.name for p in self.path.iterdir() if not _ours(p.name)]
            if "adapter_config.json" in foreign:
                raise NloraError(
                    f"{self.path} is an adapter and no model directory; to go on from it give a "
                    f"new folder and --from-adapter {self.path}"
                )
            if foreign or self._stages.exists():
                raise NloraError(
                    f"{self.path} is not a model directory (no model.json) but not empty; "
                    "choose another folder"
                )
        elif self.path.exists() or self.path.is_symlink():
            raise NloraError(f"{self.path} is a file; a model directory is needed here")
        else:
            check_creatable(self.path)
        return False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only process that writes here; leftovers of a killed one are removed.

        Where nobody can write there is no lock: a finished model on a read-only disk can be looked
        at. Raises NloraError if another process writes, or if the place holds something else.
        """
        if self.exists():
            self.config()
        new = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        if not new and not self.writable():
            yield
            return
        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            with naming(self.path):
                lock.acquire()
            self._remove_leftovers()
            yield
        except Timeout as error:
            raise NloraError(f"{self.path} is in use by another process") from error
        finally:
            if new and [p.name for p in self.path.iterdir()] == [".lock"]:
                self._remove_empty()
            lock.release()

    def writable(self) -> bool:
        """Whether this process may write here; on a read-only disk nobody may."""
        folders = [p for p in (self.path, self._stages) if p.is_dir()]
        return any(os.access(folder, os.W_OK) for folder in folders)

    def check_writable(self) -> None:
        """Raise OSError if a stage could not be written here: better now than after hours."""
        for folder in (self.path, self._stages):
            if folder.is_dir() and not os.access(folder, os.W_OK):
                number = errno.EROFS if _read_only(folder) else errno.EACCES
                raise OSError(number, os.strerror(number), str(folder))

    def _remove_leftovers(self) -> None:
        self.pending.clear()
        for path in self.path.iterdir():
            if _FILE_DRAFT.fullmatch(path.name):
                path.unlink()
        for folder in (self._stages, self.path / WATCHED):
            for path in folder.iterdir() if folder.is_dir() else ():
                if _STAGE_DRAFT.fullmatch(path.name) and path.is_dir():
                    shutil.rmtree(path)
        self.undone.finish()
        checkpoints = self.path / "checkpoints"
        for path in checkpoints.iterdir() if checkpoints.is_dir() else ():
            if (self._stages / path.name).exists():  # killed between commit and removal
                shutil.rmtree(path)
        for path in checkpoints.glob("*/.step-*"):
            shutil.rmtree(path)

    def checkpoints(self, stage: str) -> Path:
        """Where the checkpoints of a stage (its folder's name) are kept while it is trained."""
        return self.path / "checkpoints" / stage

    def drop_checkpoints(self) -> None:
        """Remove every checkpoint: the stage is committed."""
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)

    def _remove_empty(self) -> None:
        with contextlib.suppress(OSError):  # Windows keeps a file that is open
            (self.path / ".lock").unlink()
            self.path.rmdir()

    def config(self) -> dict[str, Any]:
        """`model.json`. Raises NloraError if it cannot be read, was changed, or is no such file."""
        return read_document(self.path / "model.json")

    def write_config(self, config: dict[str, Any]) -> None:
        """Write `model.json`."""
        write_text(self.path / "model.json", sealed_document(config))

    def begun(self) -> bool:
        """Whether anything is committed: a stage, or answers before any."""
        return bool(self._records() or self.watched())

    def stages(self) -> list[StageRecord]:
        """The committed stages in order, without the zero-shot evaluation."""
        return [r for r in self._records() if r.index > 0]

    def zero_shot(self) -> StageRecord | None:
        """The evaluation before any training, if there was one."""
        return next((r for r in self._records() if r.index == 0), None)

    def _records(self) -> list[StageRecord]:
        hidden = self.undone.hidden() if self._stages == self.undone.stages else set()
        paths = (p for p in self._stages.glob("[0-9]*") if p.name not in hidden)
        folders = [p for p in paths if p.is_dir()]
        records = [self._record(folder / "stage.json") for folder in folders]
        records.sort(key=lambda r: r.index)
        numbers = [r.index for r in records if r.index > 0]
        if numbers != list(range(1, len(numbers) + 1)):
            raise NloraError(f"{self._stages}: stages are missing, found {numbers}")
        check_manifests(self._stages, records)
        return records

    def _record(self, path: Path) -> StageRecord:
        """A record, for whoever asks to change as they like but for what is in its fields."""
        seen = _like(path) if path.is_file() else ()
        if path not in self._read or self._read[path][0] != seen:
            self._read[path] = seen, read_record(path)
        return self._read[path][1].model_copy()

    def stage_path(self, record: StageRecord) -> Path:
        """The folder of a committed stage."""
        return self._stages / record.folder

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
        self._verify(record, name)
        path = self.stage_path(record) / name
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
        self._verify(record, name)
        return read_json(self.stage_path(record) / name)

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
        records = {r.folder: r for r in (self.stages() if known is None else known)}
        if not records or stage == 0:
            return []
        out = taken_out(list(records.values()))
        updates = list(records.values())[-1 if stage is None else stage - 1].updates
        manifest = [name for name in updates if name not in out]
        for name in manifest if verified else ():
            self.verify(records[name])
        return [self._stages / name / "update" for name in manifest]

    def update_path(self, name: str) -> Path:
        """The folder of the update of one stage of a manifest."""
        return self._stages / name / "update"

    def precision(self) -> str | None:
        """In which precision what is committed was trained; None where nothing is."""
        if not self.begun():
            return None
        return self.config().get("settings", {}).get("precision", "fp32")

    def verify(self, record: StageRecord) -> None:
        """Compare a stage's files with their hashes. Raises NloraError naming the first bad one."""
        for name in record.files:
            self._verify(record, name)

    def _verify(self, record: StageRecord, name: str) -> None:
        self.check_file(self.stage_path(record), record, name)

    def check_file(self, folder: Path, record: StageRecord, name: str) -> None:
        """Compare a file of a stage that lies in this folder with its hash. Raises NloraError."""
        path = folder / name
        if not path.is_file():
            raise NloraError(f"{path} is missing")
        seen = _like(path)
        if self._verified.get(path) == seen:
            return
        if sha256(path) != record.files.get(name):
            raise NloraError(f"{path} was changed or damaged: its hash is not the recorded one")
        self._verified[path] = seen

    def commit(self, record: StageRecord, write: Callable[[Path], None]) -> None:
        """Write a stage (`write` fills its folder) and let it appear by one rename."""
        place, draft = self._stages / record.folder, self._stages / f".{record.folder}"
        with new_folder(place, draft):
            fill(draft, record, write)

    def adopt(
        self,
        other: "ModelDirectory",
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

    def write_results(self, results: dict[str, Any]) -> None:
        """Write `results.json`, unless it says so already."""
        path = self.path / "results.json"
        text = indented(results)
        if not path.is_file() or path.read_bytes() != text.encode():
            write_text(path, text)

    def results(self) -> dict[str, Any]:
        """`results.json`. Raises NloraError if it cannot be read."""
        return read_results(self.undone.results())


def _like(path: Path) -> tuple[int, ...]:
    """What tells a file that was written anew."""
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _read_only(folder: Path) -> bool:
    return hasattr(os, "statvfs") and bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def _ours(name: str) -> bool:
    return name in _FILES | _FOLDERS or _FILE_DRAFT.fullmatch(name) is not None
