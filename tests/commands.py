"""Whole commands on a tiny model, each in a folder of its own: what crashes are tried on.

Base model, stream and rows are made once, outside of the folders; a command is done in this process
(`done`), its output in a file, so that it can be watched and its process can be ended.
"""

import gc
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest.mock import patch

from nlora.errors import NloraError
from nlora.store.records import SEAL
from tests.faults import visible
from tests.runs import LEARNING, write_stream, write_task

SETTINGS = {"precision": "fp32", "batch_size": 4, "max_new_tokens": 2, "epochs": 1}
_VOLATILE = {
    *("seconds", "seconds_by", "peak_memory_bytes", "machine", "commit", "versions", SEAL, "files"),
    *("copied_from", "when", "finished"),
}
"""Keys whose values differ from run to run, or are hashes of such."""


class Given(NamedTuple):
    """What all commands read."""

    model: Path
    stream: Path
    task: Path
    texts: Path
    llama: Path
    """Another model, which learns `colour`, and forgets it where it learns `answers` after it."""
    colour: Path
    answers: Path


class Command(NamedTuple):
    """A command line in a folder, and what is done there before."""

    line: Callable[[Given, Path], list[Any]]
    before: str | None = None
    """The command that is done in the folder first."""
    over: Callable[[Path], bool] = lambda folder: False
    """Whether it is done in this folder: the same again would be refused, or done once more."""
    others_go_on: bool = False
    """What fails in it does not keep the rest from being done."""


def given(folder: Path) -> Given:
    """Make the model and the data."""
    from tests.tiny import save

    names = ("t5", "stream.yaml", "fruit.yaml", "texts.txt", "llama", "colour.yaml", "other.yaml")
    found = Given(*(folder / name for name in names))
    save("t5", found.model)
    save("llama", found.llama)
    write_stream(folder, "colour", "animal", train=6, test=3)
    entry = write_task(folder, "fruit", train=6, test=3)
    found.task.write_text(json.dumps([entry]))
    found.texts.write_text("xxx 1\nyyy 2\n")
    apart = folder / "forgotten"
    apart.mkdir()
    for place, name in ((found.colour, "colour"), (found.answers, "fruit")):
        entry = write_task(apart, name, train=24, test=24)
        files = {split: f"forgotten/{entry[split]}" for split in ("train", "test")}
        place.write_text(json.dumps([entry | files]))
    return found


def _trained(given: Given) -> list[Any]:
    settings = [part for k, v in SETTINGS.items() for part in ("--set", f"{k}={v}")]
    return ["--model", given.model, *settings]


def _run(given: Given, folder: Path) -> list[Any]:
    more = ("--method", "n-lora", "--evaluate", "all", "--out", folder / "run")
    return ["run", "--stream", given.stream, *_trained(given), *more]


def _compare(given: Given, folder: Path) -> list[Any]:
    more = ("--methods", "n-lora,inc-lora", "--out", folder / "grid")
    return ["compare", "--stream", given.stream, *_trained(given), *more]


def _predict(given: Given, folder: Path) -> list[Any]:
    return ["predict", folder / "run", given.texts, "--task", "colour", "--out", folder / "a.jsonl"]


def _table(given: Given, folder: Path) -> list[Any]:
    return ["table", folder / "grid" / "ledger.jsonl", "--out", folder / "tables"]


def _learn_first(given: Given, folder: Path) -> list[Any]:
    settings = [part for k, v in LEARNING.items() for part in ("--set", f"{k}={v}")]
    trained = ("--model", given.llama, "--method", "inc-lora", *settings)
    return ["learn", folder / "run", "--task", given.colour, *trained]


COMMANDS: dict[str, Command] = {
    "run": Command(_run),
    "learn": Command(lambda g, f: ["learn", f / "run", "--task", g.task], "run"),
    "learn, a first task": Command(_learn_first),
    "learn, refused": Command(
        lambda g, f: ["learn", f / "run", "--task", g.answers], "learn, a first task"
    ),
    "accept": Command(lambda g, f: ["accept", f / "run"], "learn, refused"),
    "compare": Command(_compare, others_go_on=True),
    "export": Command(
        lambda g, f: ["export", f / "run", f / "plain"], "run", lambda f: (f / "plain").exists()
    ),
    "copy": Command(
        lambda g, f: ["copy", f / "run", f / "copy"], "run", lambda f: (f / "copy").exists()
    ),
    "remove": Command(lambda g, f: ["remove", f / "run", "colour"], "run"),
    "rollback": Command(lambda g, f: ["rollback", f / "run", "--to", "1"], "run"),
    "prune": Command(lambda g, f: ["prune", f / "run"], "rollback"),
    "explain": Command(
        lambda g, f: ["explain", f / "run", "--texts", "3", "--kinds", "train", "--probe", "0"],
        "run",
    ),
    "predict": Command(_predict, "run"),
    "table": Command(_table, "compare"),
    "study row": Command(lambda g, f: ["study", "row", f / "run"], "run"),
    "analyze": Command(lambda g, f: ["analyze", f / "run"], "run"),
}


class Failed(Exception):
    """A command ended in no way that is meant to be: what it printed."""


def done(line: list[Any], log: Path) -> None:
    """Do a command in this process, which may end with a stage that is kept aside (status 3).

    Afterwards Ctrl-C and garbage collection, which `main` sets for a process that ends with it, are
    as they were. Raises NloraError with the line that it printed.
    """
    from nlora.cli.app import main

    kept = sys.argv, sys.stdout, sys.stderr
    interrupted, thresholds = signal.getsignal(signal.SIGINT), gc.get_threshold()
    with log.open("w", encoding="utf-8", buffering=1) as out:
        sys.argv, sys.stdout, sys.stderr = ["nlora", *map(str, line)], out, out
        try:
            main()
            status: Any = 0
        except SystemExit as stopped:
            status = stopped.code or 0
        finally:
            sys.argv, sys.stdout, sys.stderr = kept
            signal.signal(signal.SIGINT, interrupted)
            gc.set_threshold(*thresholds)
    if status not in (0, 3):
        said = log.read_text(encoding="utf-8")
        errors = [one for one in said.splitlines() if "error: " in one or " failed: " in one]
        raise NloraError(errors[-1]) if status in (1, 2) and errors else Failed(said)


@contextmanager
def in_this_process() -> Iterator[None]:
    """Meanwhile the cells of `compare` are run in threads, where they can be watched, too."""
    with (
        patch("nlora.study.runner._context", _Threads),
        patch("nlora.study.runner._begin", lambda process, context: process.start()),
    ):
        yield


class _Threads:
    """Of `multiprocessing`, as far as the runner needs it."""

    Pipe = staticmethod(Pipe)

    def Process(self, target: Callable[..., None], args: tuple[Any, ...]) -> Any:
        *rest, theirs = args
        ours = Connection(os.dup(theirs.fileno()), readable=False)

        class Worker(threading.Thread):
            exitcode = 0
            terminate = threading.Thread.join

            def run(self) -> None:
                try:
                    target(*rest, ours)
                finally:
                    ours.close()

        return Worker()


def same(root: Path) -> dict[str, bytes]:
    """What readers see below a folder, without what differs from run to run."""
    return {name: _plain(name, data) for name, data in visible(root).items()}


def _plain(name: str, data: bytes) -> bytes:
    if name.endswith(".jsonl"):
        rows = [json.loads(line) for line in data.splitlines() if line]
        kept = [_without(row) for row in rows if "error" not in row]  # a failed cell is done again
        if name.endswith("ledger.jsonl"):
            kept.sort(key=lambda row: json.dumps(row["cell"]))
        return json.dumps(kept).encode()
    if name.endswith(".json"):
        return json.dumps(_without(json.loads(data))).encode()
    return b"" if "cost" in name else data  # a table of seconds


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without(v) for k, v in value.items() if k not in _VOLATILE}
    if isinstance(value, list):
        return [_without(item) for item in value]
    return value


def prepare(name: str, given: Given, folder: Path, kept: Path) -> None:
    """Make the folder with what a command needs, which is itself made once, below `kept`."""
    earlier = COMMANDS[name].before
    if earlier is None:
        folder.mkdir(parents=True)
        return
    source = kept / earlier
    if not source.exists():
        prepare(earlier, given, source, kept)
        do(earlier, given, source)
    shutil.copytree(source, folder)


def do(name: str, given: Given, folder: Path) -> None:
    """Do a command in its folder, unless what it makes is there. Raises as `done` does."""
    command = COMMANDS[name]
    if command.over(folder):
        return
    with TemporaryDirectory() as scratch, in_this_process():
        done(command.line(given, folder), Path(scratch) / "log")
