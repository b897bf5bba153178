"""Random SIGKILLs of commands that are processes of their own, begun as a user begins them.

    python -m benchmarks.process_kills [--count 20] [--out docs/results/crashes.md]

Of commands whose work is short beside the time in which Python starts: each is killed at a moment
that is drawn between the one at which it has taken the directory's lock and the one at which it
ends undisturbed; `--seed` decides the draws. Linux only, from a checkout.
"""

import argparse
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.kills import table
from benchmarks.pages import put
from tests.commands import COMMANDS, Given, given, prepare, same
from tests.faults import attempt, leftovers

NAMES = ("accept", "remove", "rollback")
PAGE = """\
Written by `python -m benchmarks.process_kills`. `python -m nlora …` is killed at a random moment
after it has taken the directory's lock, and the same command is begun once more. Between two steps
is a stage (or its absence) without its `results.json`, which the next command brings up to date.

| command | kills | while it worked | between two steps | same in the end | leftovers |
| --- | --- | --- | --- | --- | --- |
"""


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
    put(options.out, "Random kills of processes", PAGE + table(rows, NAMES))


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
        process = _begun(name, read, place)
        began = time.perf_counter()
        assert process.wait() == 0, name
        seconds, last = time.perf_counter() - began, same(place)
        for number in range(count):
            moment = random.Random(f"{seed} {name} {number}").random()
            shutil.rmtree(place)
            shutil.copytree(before, place)
            process = _begun(name, read, place)
            time.sleep(moment * seconds)
            process.kill()
            status, left = process.wait(), same(place)
            again = _started(name, read, place).wait()
            yield {
                "command": name,
                "moment": round(moment * seconds, 4),
                "working": status == -9,
                "left": "before" if left == first else "after" if left == last else "between",
                "error": None if again == 0 else f"status {again}",
                "same": same(place) == last,
                "leftovers": leftovers(place),
            }


def _begun(name: str, read: Given, place: Path) -> subprocess.Popen[bytes]:
    """The command as a process, once it has the lock."""
    process = _started(name, read, place)
    while not (place / "run" / ".lock").exists() and process.poll() is None:
        time.sleep(0.0005)
    return process


def _started(name: str, read: Given, place: Path) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-m", "nlora", *map(str, COMMANDS[name].line(read, place))]
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
