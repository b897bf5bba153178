"""Token ids on disk, named by the hash of all that they were made from.

So the runs of a comparison, and a run that goes on, do not tokenise the same examples again. A file
that is missing or damaged is made anew; the oldest ones leave when all take more than `MOST_BYTES`.
"""

import contextlib
import os
import zipfile
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nlora.folders import cache_dir

MOST_BYTES = 256_000_000

Prompts = list[tuple[array, bool]]
"""Token ids of each prompt, and whether its text was cut."""


def load(key: str) -> Prompts | None:
    """What `save` was given under this key, or None if it is not there whole."""
    path = _path(key)
    try:
        with np.load(path, allow_pickle=False) as file:
            ids, lengths, cut = file["ids"], file["lengths"], file["cut"]
        ends = np.cumsum(lengths)
        if len(cut) != len(lengths) or int(lengths.sum()) != len(ids):
            return None
        os.utime(path)  # the oldest by use are the first to leave
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    rows = np.split(ids, ends[:-1])
    return [
        (array("i", row.tobytes()), bool(was)) for row, was in zip(rows, cut.tolist(), strict=True)
    ]


def save(key: str, prompts: Sequence[tuple[array, bool]]) -> None:
    """Keep token ids under a key; a folder that cannot be written keeps nothing."""
    path = _path(key)
    draft = path.with_name(f".{path.name}-{os.getpid()}")
    ids = np.concatenate([np.frombuffer(row, dtype=np.intc) for row, _ in prompts])
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with draft.open("wb") as file:
                np.savez(
                    file,
                    ids=ids,
                    lengths=np.array([len(row) for row, _ in prompts]),
                    cut=np.array([cut for _, cut in prompts]),
                )
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        _make_room(path.parent)


def _path(key: str) -> Path:
    return cache_dir() / "tokens" / f"{key}.npz"


def _make_room(folder: Path) -> None:
    files = [(path.stat(), path) for path in folder.glob("*.npz")]
    taken = sum(stat.st_size for stat, _ in files)
    for stat, path in sorted(files, key=lambda file: file[0].st_mtime):
        if taken <= MOST_BYTES:
            return
        path.unlink(missing_ok=True)
        taken -= stat.st_size
