"""The model directory: the one place where a run's files are written and read.

    model.json          what the model is: base model, method, settings, stream, seed, limits
    stages/001-name/    one committed stage each
        stage.json          task, manifest of updates, accuracies, timing, hashes of all files
        losses.jsonl        every loss term by name, per optimiser step
        test.jsonl          the task's test examples, so that a later stage can measure forgetting
        predictions.jsonl   every answer given in the evaluation after the stage
        scores.safetensors  how likely each label was then, where the most likely one was asked for
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from nlora.errors import NloraError, near, option
from nlora.store.atomic import check_creatable, indented, naming, write_text
from nlora.store.documents import read_document, read_results, sealed_document
from nlora.store.pending import PENDING, Pending
from nlora.store.records import StageRecord, stage_folder
from nlora.store.shelf import Shelf
from nlora.store.undone import Undone

__all__ = ["ModelDirectory", "StageRecord", "stage_folder"]

WATCHED = "watched"
"""The folder of tasks that are only tested, each like a stage without an update."""
_FILES = {"model.json", "results.json", ".lock"}
_FOLDERS = {"stages", WATCHED, PENDING, "checkpoints", "undone", "logs", "explain"}
# What a killed process may leave: half a file (with its process's number), half a stage.
_FILE_DRAFT = re.compile(r"\.(model|results)\.json-\d+")
_STAGE_DRAFT = re.compile(r"\.\d{3,}-.*")


class ModelDirectory(Shelf):
    """A model directory. Use `locked` around everything that writes."""

    def __init__(self, path: Path) -> None:
        super().__init__(path / "stages")
        self.path = path
        self.undone = Undone(path)
        """Stages that were taken back."""
        self.pending = Pending(self)
        """A stage that is not in force, if there is one."""

    def shelf(self, name: str) -> Shelf:
        """The stages in another folder of the directory."""
        return Shelf(self.path / name)

    def hidden(self) -> set[str]:
        """Names of stages that are on their way to or from those taken back."""
        return self.undone.hidden()

    def watched(self) -> list[StageRecord]:
        """Of each task that `learn` was told to test only, what the model answered then."""
        return self.shelf(WATCHED).stages()

    def exists(self) -> bool:
        """Whether there is a model here. Raises NloraError if the place holds something else."""
        if (self.path / "model.json").is_file():
            return True
        if self.path.is_dir():
            self._check_no_adapter()
            foreign = [p.name for p in self.path.iterdir() if not _ours(p.name)]
            if foreign or self.folder.exists():
                raise NloraError(
                    f"{self.path} is not a model directory (no model.json) but not empty; "
                    "choose another folder"
                )
        elif self.path.exists() or self.path.is_symlink():
            raise NloraError(f"{self.path} is a file; a model directory is needed here")
        else:
            check_creatable(self.path)
        return False

    def _check_no_adapter(self) -> None:
        if (self.path / "adapter_config.json").is_file():
            raise NloraError(
                f"{self.path} is an adapter and no model directory; to go on from it give a "
                f"new folder and {option('from_adapter')}"
            )

    def check_there(self, otherwise: str = "") -> None:
        """Raise NloraError where there is no model, with a near name beside it, and `otherwise`."""
        if (self.path / "model.json").is_file():
            return
        if self.folder.is_dir():
            raise NloraError(
                f"{self.path} has lost its model.json, which says of what model its stages are; "
                "bring the file back from a copy"
            )
        self._check_no_adapter()
        if (self.path / "config.json").is_file():
            raise NloraError(
                f"{self.path} is a Transformers model and no model directory: its from_pretrained "
                f"reads it; to go on from it give a new folder and {option('model')} {self.path}"
            )
        beside = [path.parent.name for path in self.path.parent.glob("*/model.json")]
        meant = [self.path.with_name(name) for name in near(self.path.name, beside)]
        cell = Path(str(self.path).replace(":", ","))  # the folder of a cell of a comparison
        if cell != self.path and (cell / "model.json").is_file():
            meant = [cell]
        perhaps = f" (did you mean {meant[0]}?)" if meant else ""
        raise NloraError(f"{self.path} holds no model{perhaps}{otherwise}")

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
            self.index.write()
        except Timeout as error:
            raise NloraError(f"{self.path} is in use by another process") from error
        finally:
            if new and [p.name for p in self.path.iterdir()] == [".lock"]:
                self._remove_empty()
            lock.release()

    def writable(self) -> bool:
        """Whether this process may write here; on a read-only disk nobody may."""
        folders = [p for p in (self.path, self.folder) if p.is_dir()]
        return any(os.access(folder, os.W_OK) for folder in folders)

    def check_writable(self) -> None:
        """Raise OSError if a stage could not be written here: better now than after hours."""
        for folder in (self.path, self.folder):
            if folder.is_dir() and not os.access(folder, os.W_OK):
                number = errno.EROFS if _read_only(folder) else errno.EACCES
                raise OSError(number, os.strerror(number), str(folder))

    def _remove_leftovers(self) -> None:
        self.pending.clear()
        for path in self.path.iterdir():
            if _FILE_DRAFT.fullmatch(path.name):
                path.unlink()
        for folder in (self.folder, self.path / WATCHED):
            for path in folder.iterdir() if folder.is_dir() else ():
                if _STAGE_DRAFT.fullmatch(path.name) and path.is_dir():
                    shutil.rmtree(path)
        self.undone.finish()
        checkpoints = self.path / "checkpoints"
        for path in checkpoints.iterdir() if checkpoints.is_dir() else ():
            if (self.folder / path.name).exists():  # killed between commit and removal
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

    def precision(self) -> str | None:
        """In which precision what is committed was trained; None where nothing is."""
        if not self.begun():
            return None
        return self.config().get("settings", {}).get("precision", "fp32")

    def write_results(self, results: dict[str, Any]) -> None:
        """Write `results.json`, unless it says so already."""
        path = self.path / "results.json"
        text = indented(results)
        if not path.is_file() or path.read_bytes() != text.encode():
            write_text(path, text)

    def results(self) -> dict[str, Any]:
        """`results.json`. Raises NloraError if it cannot be read."""
        return read_results(self.undone.results())


def _read_only(folder: Path) -> bool:
    return hasattr(os, "statvfs") and bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def _ours(name: str) -> bool:
    return name in _FILES | _FOLDERS or _FILE_DRAFT.fullmatch(name) is not None
