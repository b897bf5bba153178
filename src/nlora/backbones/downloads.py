"""The cache of downloaded models: each written once, in one rename, and checked when it is used.

A model's folder holds `SOURCE.json` beside its files: title, source, revision, the versions that
wrote it, and every file's size and SHA-256. The weights are large and can be fetched again, so
loading checks sizes; checksums are for `nlora models list --verify`.
"""

import importlib.metadata
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from nlora.checksum import sha256
from nlora.errors import NloraError
from nlora.folders import cache_dir

RECORD = "SOURCE.json"

Say = Callable[[str], None]
"""Called with a line of text about what takes long, such as a download."""


class Unreachable(NloraError):
    """A source that cannot be reached, so another one may be tried."""


@dataclass(frozen=True)
class Download:
    """One source of a model.

    `write` puts a folder that `from_pretrained` reads into the empty folder that it is given, and
    raises `Unreachable` if another source may be tried; None says that the model is part of the
    package and lies beside this file. `folder` is its name in the cache, or there; models whose
    weights differ have different folders, titles and revisions.
    """

    source: str
    folder: str
    title: str
    revision: str
    write: Callable[[Path, Say], None] | None

    @property
    def path(self) -> Path:
        """Where it is, or will be, on this machine."""
        return (cache_dir() if self.write else Path(__file__).parent) / self.folder


def ensure(download: Download, say: Say) -> None:
    """Fetch a model into the cache unless it is there whole.

    A folder with a file missing, or of another size, is written anew. Raises `Unreachable`, and
    NloraError for a wrong checksum, a full disk, a folder that nlora did not write, and a model of
    the package that is not whole.
    """
    folder = download.path
    wrong = problem(download)
    if wrong is None:
        _tidy(folder)
        return  # without the lock: a shared cache may be read-only
    if download.write is None:
        raise NloraError(f"{folder} is part of nlora, but {wrong}; install nlora again")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder, say):
            wrong = problem(download)
            if wrong is None:
                return  # another process has just written it
            if folder.exists():
                if not (folder / RECORD).is_file():
                    raise NloraError(
                        f"{folder} is in the way: it has no {RECORD}, so nlora did not write it; "
                        "move it, or set NLORA_CACHE to another folder"
                    )
                say(f"{folder}: {wrong}; fetching it again")
            _write(download, say)
    except OSError as error:
        raise NloraError(
            f"{folder} could not be written: {error.strerror or error}; make room there, or set "
            "NLORA_CACHE to another folder"
        ) from error


def problem(download: Download, hashes: bool = False) -> str | None:
    """What keeps a cached model from being used, or None. `hashes`: read and check every byte."""
    try:
        record = json.loads((download.path / RECORD).read_text(encoding="utf-8"))
        revision = record["revision"]
        files = {name: (f["size"], f["sha256"]) for name, f in record["files"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return f"{RECORD} is missing or unreadable"
    if revision != download.revision:
        return f"it holds revision {revision}, not {download.revision}"
    for name, (size, digest) in files.items():
        path = download.path / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
        if hashes and sha256(path) != digest:
            return f"{name} has changed since it was written (SHA-256)"
    return None


def write_record(folder: Path, title: str, source: str, revision: str) -> None:
    """Say in a model's folder what it is, what wrote it, and what its files are."""
    record = {
        "title": title,
        "source": source,
        "revision": revision,
        "versions": _versions(),
        "files": {
            path.name: {"size": path.stat().st_size, "sha256": sha256(path)}
            for path in sorted(folder.iterdir())
            if path.name != RECORD
        },
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _versions() -> dict[str, str]:
    """Of what wrote a model, as far as it is installed: only one source needs gguf."""
    found = {}
    for package in ("nlora", "torch", "transformers", "huggingface_hub", "gguf"):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _write(download: Download, say: Say) -> None:
    """Write a download beside its place, and rename it there when it is complete."""
    assert download.write is not None
    folder = download.path
    partial, damaged = _drafts(folder)
    for left in (partial, damaged):  # by a killed process
        shutil.rmtree(left, ignore_errors=True)
    partial.mkdir()
    try:
        download.write(partial, say)
        write_record(partial, download.title, download.source, download.revision)
        if folder.exists():  # half of it, without its record, would be in the way
            folder.rename(damaged)
        partial.rename(folder)
    finally:
        if damaged.exists() and not folder.exists():
            damaged.rename(folder)
        for left in (partial, damaged):
            shutil.rmtree(left, ignore_errors=True)
    say(f"{download.title} is in {folder}")


def _drafts(folder: Path) -> tuple[Path, Path]:
    """What is written beside a folder, and what it takes the place of."""
    return folder.with_name(f".{folder.name}.partial"), folder.with_name(f".{folder.name}.damaged")


def _tidy(folder: Path) -> None:
    """Remove what a killed process left beside a whole folder, if nobody is at work there."""
    left = [draft for draft in _drafts(folder) if draft.exists()]
    if not left:
        return
    with suppress(OSError, Timeout), FileLock(_lock_of(folder), timeout=0):
        for draft in left:
            shutil.rmtree(draft, ignore_errors=True)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


@contextmanager
def _lock(folder: Path, say: Say) -> Iterator[None]:
    """One process at a time writes a folder; the others say that they wait."""
    lock = FileLock(_lock_of(folder))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        say(f"waiting for another process that is fetching {folder.name}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
