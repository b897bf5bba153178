"""Folders that are made once for all tests and all workers, to be read only or copied."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def once(name: str, make: Callable[[Path], object], temporary: pytest.TempPathFactory) -> Path:
    """The folder of this name, made by the first worker that asks; the others wait for it."""
    base = temporary.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # which the workers of one session share
    folder = base / f"once-{name}"
    made = base / f"once-{name}.made"
    with FileLock(base / f"once-{name}.lock"):
        if not made.exists():
            folder.mkdir()
            make(folder)
            made.touch()
    return folder
