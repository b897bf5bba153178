"""Random SIGKILLs of commands that are processes of their own, begun as a user begins them.

    python -m benchmarks.process_kills [--count 20] [--log process_kills.jsonl]

Much of their life is the time in which Python starts: so every other one is killed at a moment that
is drawn between its start and its end, the rest between the moment at which it has taken its lock
and its end. One that had ended by then is begun anew with another draw. `--seed` decides the draws.
Goes on after the kills that `--log` has. Linux only, from a checkout.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from benchmarks.pages import by_command, put
from tests.commands import COMMANDS, Given, do, given, prepare, same
from tests.faults import attempt, leftovers

LOCKS = {
    **dict.fromkeys(("learn", "accept", "remove", "rollback"), "run/.lock"),
    "export": ".plain.lock",
}
"""The commands, and what each has locked as long as it writes."""
PAGE = """\
Written by `python -m benchmarks.process_kills`. `python -m nlora …` is killed at a random moment of
its life, every other time after it has taken its lock, and the same command is done
once more. Between two steps is a stage whose `results.json` is not written yet: two files cannot be
renamed as one. The stage counts then, whatever asks (`nlora` computes its results, and `verify`
finds no fault), and the next command that changes the model writes the file.

"""
COUNTED = {
    "left before": lambda row: row["left"] == "before",
    "between two steps": lambda row: row["left"] == "between",
    "after": lambda row: row["left"] == "after",
    "same in the end": lambda row: row["same"] and row["error"] is None,
    "leftovers": lambda row: row["leftovers"],
}


def main() -> None:
    """Kill, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20, help="of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, default=Path("process_kills.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/crashes.md"))
    options = parser.parse_args()
    known = options.log.read_text().splitlines() if options.log.exists() else []
    with options.log.open("a") as log, TemporaryDirectory() as folder:
        for found in _kills(Path(folder), options.seed, len(known), options.count * len(LOCKS)):
            log.write(json.dumps(found) + "\n")
            log.flush()
            print(found, flush=True)
    rows = [json.loads(line) for line in options.log.read_text().splitlines()]
    put(options.out, "Random kills of processes", PAGE + by_command(tuple(LOCKS), rows, COUNTED))


def _kills(root: Path, seed: int, done: int, count: int) -> Iterator[dict[str, Any]]:
    if done >= count:
        return
    import tests.preloaded  # noqa: F401  (what is there before is made by forked processes)

    (root / "given").mkdir()
    (root / "kept").mkdir()
    read = given(root / "given")
    whole = {name: _undisturbed(name, read, root) for name in LOCKS}
    for number in range(done, count):
        turn, which = divmod(number, len(LOCKS))
        name = list(LOCKS)[which]
        moments = random.Random(f"{seed} {number}")
        yield {"command": name, **_killed(name, moments, turn % 2 == 1, read, root, whole[name])}


class _Whole(NamedTuple):
    """A command that nothing disturbs: seconds, those with the lock, what is there around it."""

    seconds: float
    locked: float
    first: dict[str, bytes]
    last: dict[str, bytes]


def _undisturbed(name: str, read: Given, root: Path) -> _Whole:
    before, place = root / name / "before", root / name / "after"
    make = partial(prepare, name, read, before, root / "kept")
    assert (error := attempt(make, before, forked=True).error) is None, error
    (before / "run" / ".lock").unlink()
    shutil.copytree(before, place)
    began = time.perf_counter()
    process = _begun(name, read, place, locked=True)
    locked = time.perf_counter()
    assert process.wait() == 0, name
    ended = time.perf_counter()
    return _Whole(ended - began, ended - locked, same(before), same(place))


def _killed(
    name: str, moments: random.Random, locked: bool, read: Given, root: Path, whole: _Whole
) -> dict[str, Any]:
    """Kill the command at such a moment, and do it once more."""
    before, place = root / name / "before", root / name / "after"
    killed = False
    while not killed:
        shutil.rmtree(place)
        shutil.copytree(before, place)
        process = _begun(name, read, place, locked)
        time.sleep(moments.random() * (whole.locked if locked else whole.seconds))
        process.kill()
        killed = process.wait() == -signal.SIGKILL
    left = same(place)
    again = attempt(partial(do, name, read, place), place, forked=True)
    return {
        "left": "before" if left == whole.first else "after" if left == whole.last else "between",
        "error": again.error,
        "same": same(place) == whole.last,
        "leftovers": leftovers(place),
    }


def _begun(name: str, read: Given, place: Path, locked: bool) -> subprocess.Popen[bytes]:
    """The command as a process of its own; once it has its lock, if `locked`."""
    line = [sys.executable, "-m", "nlora", *map(str, COMMANDS[name].line(read, place))]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while locked and not (place / LOCKS[name]).exists() and process.poll() is None:
        time.sleep(0.0005)
    return process


if __name__ == "__main__":
    main()
