"""A model directory of two stages, without a model."""

import pytest

from nlora.store.directory import ModelDirectory
from tests.store.made import commit


@pytest.fixture
def directory(tmp_path):
    """A directory with two stages."""
    made = ModelDirectory(tmp_path / "out")
    with made.locked():
        made.write_config({"model": "m"})
        commit(made, 1, "first")
        commit(made, 2, "second", on="001-first")
    return made
