"""Runs that several files look at."""

import shutil
from types import SimpleNamespace

import pytest

from nlora.continual.guard import Guard, SetAside
from nlora.continual.learning import learn, run
from nlora.data.files import read_stream
from tests.published import published
from tests.runs import LEARNING, THOROUGH, Listener, config, write_stream


@pytest.fixture(scope="session")
def done(llama, tmp_path_factory):
    """A finished run that learned something; every task is tested after every stage."""
    folder = tmp_path_factory.mktemp("done")
    stream = write_stream(folder, train=24)
    settings = {**LEARNING, "adapter": "lora"}
    asked = config(llama, stream, settings, evaluate="all", method="replay")
    results = run(asked, folder / "out")
    return SimpleNamespace(config=asked, stream=stream, out=folder / "out", results=results)


@pytest.fixture(scope="session")
def refused(llama, tmp_path_factory):
    """A directory that knows `colour`, as it was (`before`), and as it is after the guard has
    refused `fruit`, whose answers to the same texts are others; what it found and said."""
    folder = tmp_path_factory.mktemp("refused")
    colour, fruit = read_stream(write_stream(folder, "colour", "fruit", train=24, test=24))
    run(config(llama, None, THOROUGH), folder / "before", stream=[colour])
    out = shutil.copytree(folder / "before", folder / "out")
    listener = Listener()
    with pytest.raises(SetAside) as error:
        learn(out, fruit, progress=listener, guard=Guard(5.0))
    return SimpleNamespace(
        out=out, before=folder / "before", colour=colour, fruit=fruit, error=error.value
    )


@pytest.fixture(scope="session")
def adapters(llama, tmp_path_factory):
    """Two adapters as PEFT saves them, of the fixture `llama`."""
    folder = tmp_path_factory.mktemp("adapters")
    return [published(llama, folder / f"task-{seed}", seed=seed) for seed in (1, 2)]
