"""Random SIGKILLs of commands that are processes of their own, begun as a user begins them.

    python -m benchmarks.process_kills [--count 20] [--out docs/results/crashes.md]

Of commands whose work is short beside the time in which Python starts: every other one is killed at
a moment that is drawn between its start and its end, the rest between the moment at which it has
taken the directory's lock and its end. One that had ended by then is begun anew with another draw.
`--seed` decides the draws. Linux only, from a checkout.
"""

import argparse
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
from typing import Any

from benchmarks.pages import by_command, put
from tests.commands import COMMANDS, Given, do, given, prepare, same
from tests.faults import attempt, leftovers

NAMES = ("accept", "remove", "rollback")
PAGE = """\
Written by `python -m benchmarks.process_kills`. `python -m nlora …` is killed at a random moment of
its life, every other time after it has taken the directory's lock, and the same command is done
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
    parser.add_argument("--out", type=Path, default=Path("docs/results/crashes.md"))
    options = parser.parse_args()
    rows = []
    with TemporaryDirectory() as folder:
        for found in _kills(Path(folder), options.seed, options.count):
            print(found, flush=True)
            rows.append(found)
    put(options.out, "Random kills of processes", PAGE + by_command(NAMES, rows, COUNTED))


def _kills(root: Path, seed: int, count: int) -> Iterator[dict[str, Any]]:
    import tests.preloaded  # noqa: F401  (what is there before is made by forked processes)

    (root / "given").mkdir()
    (root / "kept").mkdir()
    read = given(root / "given")
    for name in NAMES:
        before, place = root / name / "before", root / name / "after"
        make = partial(prepare, name, read, before, root / "kept")
        assert (error := attempt(make, before, forked=True).error) is None, error
        (before / "run" / ".lock").unlink()
        first = same(before)
        shutil.copytree(before, place)
        began = time.perf_counter()
        process = _begun(name, read, place, locked=True)
        locked = time.perf_counter()
        assert process.wait() == 0, name
        ended = time.perf_counter()
        seconds, last = (ended - began, ended - locked), same(place)
        moments = random.Random(f"{seed} {name}")
        for number in range(count):
            locked, killed = number % 2 == 1, False
            while not killed:
                shutil.rmtree(place)
                shutil.copytree(before, place)
                process = _begun(name, read, place, locked)
                time.sleep(moments.random() * seconds[locked])
                process.kill()
                killed = process.wait() == -signal.SIGKILL
            left = same(place)
            again = attempt(partial(do, name, read, place), place, forked=True)
            yield {
                "command": name,
                "left": "before" if left == first else "after" if left == last else "between",
                "error": again.error,
                "same": same(place) == last,
                "leftovers": leftovers(place),
            }


def _begun(name: str, read: Given, place: Path, locked: bool) -> subprocess.Popen[bytes]:
    """The command as a process of its own; once it has the lock, if `locked`."""
    line = [sys.executable, "-m", "nlora", *map(str, COMMANDS[name].line(read, place))]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while locked and not (place / "run" / ".lock").exists() and process.poll() is None:
        time.sleep(0.0005)
    return process


if __name__ == "__main__":
    main()
