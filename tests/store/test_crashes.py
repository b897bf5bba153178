"""Wherever a write, sync, rename, lock or removal fails, or is the last thing a process does.

The whole matrix, also of whole commands, is made by `python -m benchmarks.crashes`.
"""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.crashes import Way, crashes
from tests.operations import OPERATIONS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")


@pytest.fixture(scope="module")
def small():
    """A process without PyTorch: each kill is of a fork, and a large process takes long to fork."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield pool


def tried(name, folder):
    """The crashes of an operation, in a folder."""
    before = folder / "before"
    before.mkdir()
    operation = OPERATIONS[name]
    operation.prepare(before)
    way = Way(("ENOSPC", "SIGKILL"), points=12)  # the benchmark tries all
    return list(crashes(operation.act, before, folder, operation.seen, way))


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_folder_is_as_before_or_as_after_and_the_same_again_goes_on(name, small, tmp_path):
    found = small.submit(tried, name, tmp_path).result()
    assert len(found) >= 2 * 4  # an open, a write, a sync and a rename at least
    assert not [f"{c.point}, {c.fault}: {c.wrong}" for c in found if c.wrong]
    assert not OPERATIONS[name].at_once or not [c.point for c in found if c.left == "between"]
