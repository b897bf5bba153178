"""A finished run that several files look at."""

from types import SimpleNamespace

import pytest

from nlora.continual.learning import run
from tests.runs import LEARNING, config, write_stream


@pytest.fixture(scope="session")
def done(llama, tmp_path_factory):
    """A finished run that learned something; every task is tested after every stage."""
    folder = tmp_path_factory.mktemp("done")
    stream = write_stream(folder, train=24)
    settings = {**LEARNING, "adapter": "lora"}
    asked = config(llama, stream, settings, evaluate="all", method="replay")
    results = run(asked, folder / "out")
    return SimpleNamespace(config=asked, stream=stream, out=folder / "out", results=results)
