"""The benchmark, fetched from the O-LoRA repository at a pinned commit, checked and unpacked.

Nothing in the archive decides where a file is written, or how many: only the regular files that
the benchmark's layout names are taken, each under a path made here. The folder appears by one
rename after every data set in it has been read.
"""

import errno
import gzip
import http.client
import json
import shutil
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from nlora.checksum import sha256
from nlora.data.benchmark import DATASETS, SPLITS, read_labels, read_split
from nlora.data.check import check
from nlora.data.task import Task
from nlora.errors import NloraError

COMMIT = "d8315ce8e3c8ca08984295b1183e404fa2158025"
URL = f"https://codeload.github.com/cmnfriend/O-LoRA/tar.gz/{COMMIT}"
SOURCE = "SOURCE.json"

MAX_ARCHIVE = 2**30
"""Bytes of the archive; the published one is far below this bound, and so are the next three."""
MAX_UNPACKED = 2**31
MAX_FILE = 2**28
MAX_MEMBERS = 20_000

_TIMEOUT = 60  # seconds without a byte
_CHUNK = 2**20
_TOO_LONG = "the archive unpacks to more than the benchmark can be; nothing was taken from it"
# tarfile reads a header's extension at once, however long it says it is; real ones are short.
_MAX_READ = 2**20

_STARS = ("very negative", "negative", "neutral", "positive", "very positive")
LABELS: dict[str, tuple[str, ...]] = {
    "dbpedia": (
        *("Company", "Educational Institution", "Artist", "Athlete", "Office Holder"),
        *("Mean of Transportation", "Building", "Natural Place", "Village", "Animal", "Plant"),
        *("Album", "Film", "Written Work"),
    ),
    "amazon": _STARS,
    "yahoo": (
        *("Society & Culture", "Science & Mathematics", "Health", "Education & Reference"),
        *("Computers & Internet", "Sports", "Business & Finance", "Entertainment & Music"),
        *("Family & Relationships", "Politics & Government"),
    ),
    "agnews": ("World", "Sports", "Business", "Science or Technology"),
    "mnli": ("neutral", "entailment", "contradiction"),
    "cb": ("entailment", "contradiction", "neutral"),
    "wic": ("True", "False"),
    "copa": ("A", "B"),
    "qqp": ("False", "True"),
    "boolqa": ("True", "False"),
    "rte": ("contradiction", "entailment"),
    "imdb": ("Good", "Bad"),
    "yelp": _STARS,
    "sst-2": ("Good", "Bad"),
    "multirc": ("False", "True"),
}
"""The published label lists. Their order is that of the prompt's options, so it matters."""

Progress = Callable[[int, int | None], object]
"""Called with how many bytes have come, and of how many (None where the server does not say)."""


@dataclass(frozen=True, slots=True)
class Download:
    """A finished download, and what its SOURCE.json says.

    `files` are the SHA-256 sums by path, `dropped` counts the rows by path that were left out since
    no reader could use them (a label that is not in labels.json, an empty text).
    """

    url: str
    commit: str
    dropped: dict[str, int]
    files: dict[str, str]


def download(
    folder: Path, url: str = URL, progress: Progress = lambda done, total: None
) -> tuple[Download, bool]:
    """Fetch the benchmark into `folder`; returns the download, and whether it was made just now.

    A folder that already holds a finished, unchanged download of the pinned commit is left as it
    is. `url` may be a mirror or a `file://` address of the same archive.

    Raises NloraError when the folder holds something else, the archive cannot be had or is not the
    published one, or the disk is full. The folder then is as it was before.
    """
    folder = folder.expanduser().resolve()
    work = folder.parent / f".{folder.name}.download"
    with on_disk(folder):
        if done := _finished(folder):
            return done, False
        work.mkdir(parents=True, exist_ok=True)
        with alone(work / "lock", folder):
            try:
                data = work / "data"
                shutil.rmtree(data, ignore_errors=True)  # an interrupted download left it
                data.mkdir()
                fetch(url, work / "archive.tar.gz", progress)
                wanted = {
                    f"CL_Benchmark/{folder}/{part}.json": data / folder / f"{part}.json"
                    for folder in DATASETS.values()
                    for part in (*SPLITS, "labels")
                }
                unpack(work / "archive.tar.gz", wanted, COMMIT, url)
                made = Download(url, COMMIT, _verify(data), _sums(data))
                text = json.dumps(asdict(made), indent=2)
                (data / SOURCE).write_text(text + "\n", encoding="utf-8")
                if folder.exists():
                    folder.rmdir()  # fails unless it is still empty
                data.rename(folder)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return made, True


def _finished(folder: Path) -> Download | None:
    """The finished download in the folder, None if there is nothing in it."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        made = Download(**json.loads((folder / SOURCE).read_text(encoding="utf-8")))
        files = dict(made.files)
    except (OSError, ValueError, TypeError):
        raise NloraError(
            f"{folder} exists and is no finished download; choose another folder or remove it"
        ) from None
    if made.commit != COMMIT:
        raise NloraError(
            f"{folder} holds commit {made.commit}, not {COMMIT}; choose another folder"
        )
    now = _sums(folder)
    for name, value in files.items():
        if now.get(name) != value:
            raise NloraError(
                f"{folder / name} is not as it was downloaded; remove the folder and run again"
            )
    return made


def fetch(url: str, archive: Path, progress: Progress) -> None:
    """The archive, piece by piece, so that neither memory nor disk can run full."""
    with _network(url):
        response = urllib.request.urlopen(url, timeout=_TIMEOUT)
    with response, archive.open("wb") as file:
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
        done = 0
        while True:
            with _network(url):
                chunk = response.read(_CHUNK)
            if not chunk:
                break
            done += len(chunk)
            if done > MAX_ARCHIVE:
                raise NloraError(f"{url}: more than {MAX_ARCHIVE:,} bytes: not the benchmark")
            file.write(chunk)
            progress(done, total)
    if total is not None and done < total:
        raise NloraError(f"{url}: broke off after {done:,} of {total:,} bytes; run again")


def unpack(archive: Path, wanted: dict[str, Path], commit: str, url: str) -> None:
    """The wanted files, and nothing else, from a repository's archive, each to its path.

    Names are relative to the repository. Raises NloraError where the archive is of another commit,
    is broken or too long, or lacks a file other than a `dev.json`.
    """
    wanted = dict(wanted)
    try:
        with _Unpacked(archive) as stream, tarfile.TarFile(fileobj=stream) as tar:
            of = tar.pax_headers.get("comment")
            if of != commit:
                raise NloraError(f"{url}: is of commit {of or 'unknown'}, not {commit}")
            for count, member in enumerate(tar, start=1):
                if count > MAX_MEMBERS:
                    raise NloraError(f"{url}: more than {MAX_MEMBERS:,} files: not the benchmark")
                top, _, name = member.name.partition("/")
                # A sparse file can be long on disk and short in the archive.
                if top in ("", ".", "..") or not member.isreg() or member.issparse():
                    continue
                if name in wanted:
                    _take(tar, member, wanted.pop(name))
            while stream.read(_MAX_READ):  # to the end, where gzip has its checksum
                pass
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError) as error:
        raise NloraError(f"{url}: truncated, or no tar.gz archive ({error}); run again") from None
    missing = [name for name in wanted if not name.endswith("/dev.json")]
    if missing:
        raise NloraError(f"{url}: has no {missing[0]} ({len(missing)} files are missing)")


class _Unpacked(gzip.GzipFile):
    """The archive as tar, bounded in its length and in what one read returns."""

    def read(self, size: int | None = -1) -> bytes:
        """At most `size` bytes from here. Raises NloraError past a bound."""
        if size is None or not 0 <= size <= _MAX_READ or self.tell() > MAX_UNPACKED:
            raise NloraError(_TOO_LONG)
        return super().read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to the offset from the start. Raises NloraError past the bound."""
        if offset > MAX_UNPACKED:
            raise NloraError(_TOO_LONG)
        return super().seek(offset, whence)


def _take(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    if member.size > MAX_FILE:
        raise NloraError(f"{member.name}: {member.size:,} bytes, more than {MAX_FILE:,}")
    source = tar.extractfile(member)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        shutil.copyfileobj(source, file)  # type: ignore[arg-type]  # a regular file has content


def _verify(data: Path) -> dict[str, int]:
    """Read every data set; the counts of the rows by file that were dropped for that.

    Raises NloraError when labels or data are not those of the published benchmark.
    """
    try:
        for name, folder in DATASETS.items():
            if read_labels(data / folder) != LABELS[name]:
                raise NloraError(f"{folder}/labels.json: not the published labels, in their order")
        if not check(data).problems:
            return {}
        dropped = _drop_unreadable(data)
        if problems := check(data).problems:
            raise NloraError(problems[0])
    except NloraError as error:
        told = str(error).replace(f"{data}/", "")
        raise NloraError(f"not the published benchmark: {told}") from None
    return dropped


def _drop_unreadable(data: Path) -> dict[str, int]:
    dropped = {}
    for name, folder in DATASETS.items():
        task = Task(name, labels=LABELS[name])
        for split in SPLITS:
            problems: list[str] = []
            examples = read_split(data / folder, split, task, problems.append)
            if problems and examples:
                rows = [{"label": example.label, "sentence": example.text} for example in examples]
                path = data / folder / f"{split}.json"
                before = len(json.loads(path.read_text(encoding="utf-8")))
                path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
                dropped[f"{folder}/{split}.json"] = before - len(rows)
    return dropped


def _sums(data: Path) -> dict[str, str]:
    return {
        path.relative_to(data).as_posix(): sha256(path) for path in sorted(data.glob("*/*/*.json"))
    }


@contextmanager
def alone(lock: Path, folder: Path) -> Iterator[None]:
    """Holds the lock, or raises NloraError where another download into the folder has it."""
    try:
        with FileLock(lock, timeout=0):
            yield
    except Timeout:
        raise NloraError(f"another download into {folder} is under way") from None


@contextmanager
def _network(url: str) -> Iterator[None]:
    try:
        yield
    except urllib.error.HTTPError as error:
        raise NloraError(f"{url}: the server answered {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise NloraError(f"cannot fetch {url}: {reason}; is there a network?") from None


@contextmanager
def on_disk(folder: Path) -> Iterator[None]:
    """Errors of the disk become one line that names the place."""
    try:
        yield
    except OSError as error:
        place = error.filename or folder.parent
        free = "; free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise NloraError(f"cannot write {place}: {error.strerror}{free}") from None
