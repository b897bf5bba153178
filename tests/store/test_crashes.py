"""Wherever a write, sync, rename, lock or removal fails, or is the last thing a process does.

The whole matrix, also of whole commands, is made by `python -m benchmarks.crashes`.
"""

import sys

import pytest

from tests.crashes import Way, crashes
from tests.operations import OPERATIONS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_folder_is_as_before_or_as_after_and_the_same_again_goes_on(name, tmp_path):
    before = tmp_path / "before"
    before.mkdir()
    operation = OPERATIONS[name]
    operation.prepare(before)
    way = Way(("ENOSPC", "SIGKILL"), points=12)  # the benchmark tries all
    found = list(crashes(operation.act, before, tmp_path, operation.seen, way))
    assert len(found) >= 2 * 4  # an open, a write, a sync and a rename at least
    assert not [f"{c.point}, {c.fault}: {c.wrong}" for c in found if c.wrong]
    assert not operation.at_once or not [c.point for c in found if c.left == "between"]
