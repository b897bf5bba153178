"""Files and folders that are there whole or not at all."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from nlora.errors import NloraError


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new one, whatever happens."""
    # Not by tempfile, whose files only their owner may read: a model directory may be shared.
    draft = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_json(path: Path, value: Any) -> None:
    """`write_text` of indented JSON."""
    write_text(path, indented(value))


def indented(value: Any) -> str:
    """A value as the text of a JSON file."""
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def draft_text(path: Path, text: str) -> None:
    """Write a file of a folder that is synced as a whole before it takes its place."""
    path.write_text(text, encoding="utf-8", newline="\n")


@contextmanager
def new_folder(place: Path, draft: Path) -> Iterator[Path]:
    """The draft of a folder, beside its place, that it takes by one rename if the block succeeds.

    Raises NloraError if safetensors could not write: a full disk, in their words.
    """
    shutil.rmtree(draft, ignore_errors=True)  # a killed process may have left one
    draft.mkdir(parents=True)
    try:
        yield draft
        for path in draft.rglob("*.safetensors"):  # are written for their owner alone
            path.chmod(draft.stat().st_mode & 0o666)
        sync_tree(draft)
        draft.rename(place)
    except BaseException as error:
        shutil.rmtree(draft, ignore_errors=True)
        if isinstance(error, SafetensorError):
            raise NloraError(
                f"{place} could not be written: {error}; committed stages stand"
            ) from error
        raise
    sync(place.parent)


def sync(folder: Path) -> None:
    """Make what was created, renamed or removed in a folder survive a power cut."""
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """`sync` for every file and folder below one."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        elif path.is_dir():
            sync(path)
    sync(folder)
