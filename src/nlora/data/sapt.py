"""SAPT's fifteen tasks, fetched from its repository at a pinned commit, checked and converted."""

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path

from nlora.data.convert import SPLITS, Converted, convert
from nlora.data.download import Progress, alone, fetch, on_disk, unpack
from nlora.data.published import SUPERNI
from nlora.errors import NloraError

COMMIT = "52a52b920324c656bdb6dac08e43dc600ba22f21"
URL = f"https://codeload.github.com/circle-hit/SAPT/tar.gz/{COMMIT}"
TREE = "24e86f9beb5b786081ae546552f3e3c54edabb44"
"""Git's own hash of the published folder CL_Benchmark/SuperNI, of every byte in it."""

_FOLDER = "CL_Benchmark/SuperNI"


def download(
    data: Path, url: str = URL, progress: Progress = lambda done, total: None
) -> Converted:
    """Fetch SAPT's tasks into the data folder, as its group SuperNI.

    Raises NloraError when the group is there already, the archive cannot be had or is not the
    published one, or the disk is full. The folder then is as it was before.
    """
    data = data.expanduser().resolve()
    work = data.parent / f".{data.name}.superni"
    if (data / "SuperNI").exists():
        raise NloraError(f"{data / 'SuperNI'} exists already; remove it or choose another folder")
    with on_disk(data):
        work.mkdir(parents=True, exist_ok=True)
        with alone(work / "lock", data):
            try:
                files = work / "files"
                shutil.rmtree(files, ignore_errors=True)  # an interrupted download left it
                fetch(url, work / "archive.tar.gz", progress)
                names = [f"{task}/{part}.json" for task in SUPERNI for part in SPLITS["SuperNI"]]
                wanted = {f"{_FOLDER}/{name}": files / name for name in names}
                unpack(work / "archive.tar.gz", wanted, COMMIT, url)
                if (found := git_tree(files)) != TREE:
                    raise NloraError(f"{url}: {_FOLDER} is not the published one ({found})")
                return convert("superni-15", files, data)
            finally:
                shutil.rmtree(work, ignore_errors=True)


def git_tree(folder: Path) -> str:
    """The hash that Git gives to a folder of plain files and folders."""
    return _tree(folder).hex()


def _tree(folder: Path) -> bytes:
    def entry(path: Path) -> bytes:
        if path.is_dir():
            return b"40000 " + path.name.encode() + b"\0" + _tree(path)
        return b"100644 " + path.name.encode() + b"\0" + _hash(b"blob", path.read_bytes())

    # Git sorts a folder as if its name ended with a slash.
    paths: Iterable[Path] = sorted(folder.iterdir(), key=lambda p: p.name + "/" * p.is_dir())
    return _hash(b"tree", b"".join(entry(path) for path in paths))


def _hash(kind: bytes, content: bytes) -> bytes:
    header = kind + b" %d\0" % len(content)
    return hashlib.sha1(header + content, usedforsecurity=False).digest()
