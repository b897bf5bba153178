"""Files and folders that are there whole or not at all."""

import errno
import glob
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from nlora.errors import NloraError

_OS_ERROR = re.compile(r"\(os error (\d+)\)")
"""How safetensors, which is no Python, tells what the system said."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of the disk name this path: one of writing or syncing names none."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def check_creatable(folder: Path) -> None:
    """Raise NloraError for a folder that cannot be made, since a part of its path is a file."""
    there = next(part for part in (folder, *folder.absolute().parents) if part.exists())
    if not there.is_dir():
        raise NloraError(f"cannot create {folder}: {there} is a file")


def check_outside(out: Path, folder: Path) -> None:
    """Raise NloraError for what would lie in a folder that is read."""
    if folder.resolve() in out.resolve().parents:
        raise NloraError(f"{out} lies in {folder}; choose a place outside of it")


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new one, whatever happens."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Likewise of bytes."""
    # Not by tempfile, whose files only their owner may read: a model directory may be shared.
    draft = path.with_name(f".{path.name}-{os.getpid()}")
    with naming(path):
        _remove_drafts(path)
        try:
            with draft.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except BaseException:
            with suppress(OSError):  # the error that made it fail is the one to tell
                draft.unlink(missing_ok=True)
            raise
        sync(path.parent)


def _remove_drafts(path: Path) -> None:
    """Remove what killed processes have left of a file."""
    for draft in path.parent.glob(f".{glob.escape(path.name)}-*"):
        number = draft.name.rpartition("-")[2]
        if number.isdecimal() and not is_running(int(number)):
            with suppress(OSError):
                draft.unlink()


def is_running(pid: int) -> bool:
    """Whether there is such a process; on Windows, where asking would end it, perhaps."""
    try:
        return os.name == "nt" or os.kill(pid, 0) is None
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it is somebody else's
        return True


def write_json(path: Path, value: Any) -> None:
    """`write_text` of indented JSON."""
    write_text(path, indented(value))


def indented(value: Any) -> str:
    """A value as the text of a JSON file."""
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def draft_text(path: Path, text: str) -> None:
    """Write a file of a folder that is synced as a whole before it takes its place."""
    draft_bytes(path, text.encode())


def draft_bytes(path: Path, content: bytes) -> None:
    """Likewise of bytes."""
    with naming(path):
        path.write_bytes(content)


def append_line(path: Path, line: str) -> None:
    """Add a line to a file; where that fails the file is as it was. For one process at a time.

    A process that is killed meanwhile may leave half a line, which has no end.
    """
    with naming(path), path.open("ab", buffering=0) as file:
        before = file.tell()
        try:
            data = memoryview(line.encode() + b"\n")
            while data:
                data = data[file.write(data) :]
            os.fsync(file.fileno())
        except BaseException:
            file.truncate(before)
            raise


@contextmanager
def new_folder(place: Path, draft: Path) -> Iterator[Path]:
    """The draft of a folder, beside its place, that it takes by one rename if the block succeeds.

    A draft that failed goes, with the folders above that were made for it. For one process at a
    time.
    """
    with naming(place), _made(draft):
        try:
            yield draft
            for path in draft.rglob("*.safetensors"):  # are written for their owner alone
                path.chmod(draft.stat().st_mode & 0o666)
            sync_tree(draft)
            draft.rename(place)
        except SafetensorError as error:
            raise _as_system_error(error, place) from error
    with naming(place):
        sync(place.parent)


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """An empty folder to work in, which goes at the end. For one process at a time."""
    with _made(folder):
        yield folder
        shutil.rmtree(folder)


@contextmanager
def _made(draft: Path) -> Iterator[None]:
    """An empty folder, which is removed again if the block fails."""
    shutil.rmtree(draft, ignore_errors=True)  # a killed process may have left one
    with parents(draft):
        try:
            draft.mkdir()
            yield
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise


@contextmanager
def parents(path: Path) -> Iterator[None]:
    """The folders above a path, made where need be; those of them that stay empty go again."""
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for folder in missing:
            with suppress(OSError):  # it is in use
                folder.rmdir()


def _as_system_error(error: SafetensorError, place: Path) -> Exception:
    """What the system said to safetensors when it could not write."""
    said = _OS_ERROR.search(str(error))
    if said is None:
        return NloraError(f"{place} could not be written: {error}")
    number = int(said[1])
    return OSError(number, os.strerror(number), str(place))


def check_place(place: Path, size: int) -> None:
    """Raise OSError if no folder can be made there, or if there is no room for `size` bytes."""
    try:
        with _made(place.with_name(f".{place.name}.partial")):
            free = shutil.disk_usage(place.parent).free
            raise _Enough
    except _Enough:
        pass
    if free < size:
        said = f"{size / 1e9:.1f} GB are needed, and {free / 1e9:.1f} GB are free"
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}, {said}", str(place))


class _Enough(Exception):
    """Ends a trial, so that what was made for it goes."""


def sync(folder: Path) -> None:
    """Make what was created, renamed or removed in a folder survive a power cut."""
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with naming(folder):
            os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """`sync` for every file and folder below one."""
    for path in folder.rglob("*"):
        if path.is_file():
            with naming(path), path.open("rb") as file:
                os.fsync(file.fileno())
        elif path.is_dir():
            sync(path)
    sync(folder)
