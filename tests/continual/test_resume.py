"""A run that is killed, and started again with the same command, ends as an unbroken one."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.processes import context
from tests.runs import LEARNING, tree, write_stream
from tests.training.command import command

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")

SETTINGS = LEARNING

METHODS = {
    "inc-lora": [],
    "replay": ["--set", "adapter=full"],
}

MOMENTS = {
    # at which call of what the process kills itself, and the stages that are there afterwards
    "half of model.json": ("model.json", 1, []),
    "in training, nothing committed": ("step", 5, []),
    "half of the first stage": ("sync", 1, [".001-colour"]),
    "committed, no results.json yet": ("results", 1, ["001-colour"]),
    "in training of the second stage": ("step", 7, ["001-colour"]),
    "in evaluation of the second stage": ("evaluate", 1, ["001-colour"]),
    "half of the second stage": ("sync", 1, [".002-animal", "001-colour"]),
    "half of results.json": ("results.json", 1, ["001-colour", "002-animal"]),
    "in training of the last stage": ("step", 10, ["001-colour", "002-animal"]),
}
"""In this order in one directory; each start goes on from where the one before was killed."""


def arguments(method, llama, stream, out):
    command = ["run", "--stream", stream, "--method", method, "--model", llama, "--out", out]
    settings = [f"{name}={value}" for name, value in SETTINGS.items()]
    command += [part for setting in settings for part in ("--set", setting)]
    return [str(part) for part in command + METHODS[method]]


def start(arguments, log, moment=None, by=signal.SIGKILL):
    """The exit status of the command, in a process forked from one that has imported torch."""
    os.environ["OMP_NUM_THREADS"] = "1"  # one process can be compared with another
    process = context().Process(target=command, args=(arguments, str(log), moment, by))
    process.start()
    process.join()
    return process.exitcode


@pytest.fixture(scope="module", params=METHODS)
def unbroken(request, llama, tmp_path_factory):
    """A method's command, for any folder, and the directory of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("unbroken")
    stream = write_stream(folder, train=24)

    def line(out):
        return arguments(request.param, llama, stream, out)

    log = folder / "log"
    assert start(line(folder / "out"), log) == 0, log.read_text()
    return line, folder / "out"


def comparable(out: Path) -> dict[str, bytes]:
    """All that a run must reproduce bit by bit: everything but times, memory and versions."""
    return {
        name: data
        for name, data in tree(out).items()
        if not name.endswith(("stage.json", "results.json"))
    }


def results(out: Path) -> dict:
    found = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return {k: v for k, v in found.items() if k not in ("seconds", "peak_memory_bytes")}


def test_something_is_learned(unbroken):
    found = results(unbroken[1])
    assert found["learning_accuracy"] > 50
    assert found["forgetting"] > 0


def test_killed_at_any_moment_a_run_ends_as_an_unbroken_one(unbroken, tmp_path):
    line, reference = unbroken
    out, log = tmp_path / "out", tmp_path / "log"
    for name, (place, call, stages) in MOMENTS.items():
        status = start(line(out), log, (place, call))
        assert status == -signal.SIGKILL, f"{name}: {log.read_text()}"
        found = out / "stages"
        assert sorted(os.listdir(found) if found.is_dir() else []) == stages, name
    assert start(line(out), log) == 0, log.read_text()
    assert comparable(out) == comparable(reference)
    assert results(out) == results(reference)


@pytest.mark.parametrize("unbroken", ["inc-lora"], indirect=True)
def test_the_command_line_stopped_and_killed_ends_as_an_unbroken_one(unbroken, tmp_path):
    line, reference = unbroken
    out = tmp_path / "out"

    def interrupted(by, *committed):
        """Send the signal in the training of the stage after these; the exit status and output."""
        log = tmp_path / "log"
        in_next = 12 + 7  # one stage of 12 steps, and some
        status = start(line(out), log, ("step", in_next), by)
        assert {p for p in os.listdir(out / "stages") if not p.startswith(".")} == {*committed}
        return status, log.read_text()

    status, complained = interrupted(signal.SIGINT, "001-colour")
    assert status == 130
    assert "Traceback" not in complained
    errors = [line for line in complained.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert complained.splitlines()[-1] == errors[0]
    assert "the same command goes on" in errors[0]
    assert not [p for p in tree(out) if p.startswith("stages/.")]  # what was begun is tidied away

    status, complained = interrupted(signal.SIGKILL, "001-colour", "002-animal")
    assert status == -signal.SIGKILL
    assert "001-colour: training" not in complained

    log = tmp_path / "log"
    assert start(line(out), log) == 0, log.read_text()
    assert comparable(out) == comparable(reference)
    assert results(out) == results(reference)
