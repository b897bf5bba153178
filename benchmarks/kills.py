"""Random SIGKILLs over whole commands: each ends after the same once more, as if it had not died.

    python -m benchmarks.kills [--count 100] [--out docs/results/crashes.md] [--log kills.jsonl]

A command's process, forked from one that has the libraries imported, is killed after a part of the
CPU time that the command took undisturbed, a part that is drawn; `--seed` decides all draws. Goes
on after the kills that `--log` has. Linux only, from a checkout.
"""

import argparse
import json
import math
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.pages import by_command, put
from tests.commands import Given, do, given, prepare, same
from tests.faults import attempt, leftovers

COMMANDS = ("run", "learn", "export", "compare")
PAGE = """\
Written by `python -m benchmarks.kills`. A command's process is killed at a random moment of its
work, and the same command is done once more. Then every file must be as if it had never died, but
for seconds, bytes of memory and hashes of these, and nothing may stay behind; the cells of
`compare` are threads of the process that is killed.

"""
COUNTED = {
    "while it worked": lambda row: row["working"],
    "between two steps": lambda row: row["left"] == "between",
    "same in the end": lambda row: row["same"] and row["error"] is None,
    "leftovers": lambda row: row["leftovers"],
}


def main() -> None:
    """Kill, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, default=Path("kills.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/crashes.md"))
    options = parser.parse_args()
    known = options.log.read_text().splitlines() if options.log.exists() else []
    with options.log.open("a") as log, TemporaryDirectory() as folder:
        for found in _kills(Path(folder), options.seed, len(known), options.count):
            log.write(json.dumps(found) + "\n")
            log.flush()
            print(found, flush=True)
    rows = [json.loads(line) for line in options.log.read_text().splitlines()]
    put(options.out, "Random kills", PAGE + by_command(COMMANDS, rows, COUNTED))


def _kills(root: Path, seed: int, done: int, count: int) -> Iterator[dict[str, Any]]:
    if done >= count:
        return
    import tests.preloaded  # noqa: F401  (forked processes need not import these again)

    (root / "given").mkdir()
    (root / "kept").mkdir()
    read = given(root / "given")
    whole = {name: _undisturbed(name, read, root) for name in COMMANDS}
    for number in range(done, count):
        name = COMMANDS[number % len(COMMANDS)]
        moment = random.Random(f"{seed} {number}").random()
        yield {"number": number, "command": name, **_killed(name, moment, read, root, whole[name])}


def _undisturbed(name: str, read: Given, root: Path) -> tuple[float, Any, Any]:
    """How much CPU time the command takes, and what is there before and after it."""
    before, after = root / name / "before", root / name / "after"
    error = attempt(partial(prepare, name, read, before, root / "kept"), before, forked=True).error
    assert error is None, error
    shutil.copytree(before, after)
    _, status, used = os.wait4(_begun(name, read, after), 0)
    assert status == 0, name
    return used.ru_utime + used.ru_stime, same(before), same(after)


def _begun(name: str, read: Given, place: Path) -> int:
    """Begin the command in a process of its own."""
    pid = os.fork()
    if pid == 0:
        try:
            do(name, read, place)
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def _cpu_seconds(pid: int) -> float:
    """What a process has used so far; endless if it has ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return math.inf if fields[0] == "Z" else ticks / os.sysconf("SC_CLK_TCK")


def _killed(
    name: str, moment: float, read: Given, root: Path, whole: tuple[float, Any, Any]
) -> dict[str, Any]:
    """Kill the command at this part of its CPU time, and do it once more."""
    seconds, first, last = whole
    before, place = root / name / "before", root / name / "after"
    shutil.rmtree(place)
    shutil.copytree(before, place)
    pid = _begun(name, read, place)
    while _cpu_seconds(pid) < moment * seconds:
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    left = same(place)
    again = attempt(partial(do, name, read, place), place, forked=True)
    return {
        "moment": round(moment, 3),
        "working": os.WIFSIGNALED(status),
        "left": "before" if left == first else "after" if left == last else "between",
        "error": again.error,
        "same": same(place) == last,
        "leftovers": leftovers(place),
    }


if __name__ == "__main__":
    main()
