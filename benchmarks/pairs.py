"""Every pair of commands on one directory at the same time.

    python -m benchmarks.pairs [--out docs/results/crashes.md]

The directory is a comparison of which one cell has learned the first of its two tasks: `compare`
and `run` go on with it, `learn` teaches it another task, `predict`, `export` and `analyze` read it,
and `table` reads the comparison's ledger. The second command begins while the first one works.
Linux only, from a checkout.
"""

import argparse
import json
import os
import shutil
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.pages import put
from tests.commands import COMMANDS, Given, done, given, in_this_process, prepare
from tests.faults import attempt, leftovers

from nlora.errors import NloraError
from nlora.report import ledger
from nlora.store.directory import ModelDirectory

CELL = Path("grid", "stream", "n-lora", "seed-0")
NAMES = ("run", "learn", "predict", "export", "table", "compare", "analyze")
PARTS = (0.0, 0.5)
"""Of the time that the first command takes alone: when the second one begins."""
PAGE = """\
Written by `python -m benchmarks.pairs`. One directory, two processes: the row's command begins, and
the column's command begins at the same moment, and once more after half of the time that the first
takes alone. `both`: both did their work, both times; `first`, `second`: the other one was refused
in one line at least once; `neither`: each was once. Afterwards the cell and its ledger were whole,
every file as its hash says, and nothing was left behind, or the table says what was not so.

"""


def main() -> None:
    """Start the pairs, and write the table."""
    import tests.preloaded  # noqa: F401  (forked processes need not import these again)

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/results/crashes.md"))
    options = parser.parse_args()
    said: dict[str, None] = {}
    rows = [f"| | {' | '.join(NAMES)} |", "| --- |" + " --- |" * len(NAMES)]
    with TemporaryDirectory() as folder:
        root = Path(folder)
        read = _begun(root)
        seconds = {name: _alone(name, read, root) for name in NAMES}
        for first in NAMES:
            cells = [_pair(first, second, seconds[first], read, root, said) for second in NAMES]
            rows.append(f"| **{first}** | {' | '.join(cells)} |")
            print(rows[-1], flush=True)
    refusals = "".join(f"- `{line}`\n" for line in sorted(said))
    put(options.out, "Two at once", PAGE + "\n".join(rows) + f"\n\nRefusals:\n\n{refusals}")


def _begun(root: Path) -> Given:
    """Make the comparison, and take back what one of its cells has learned last."""
    (root / "given").mkdir()
    (root / "kept").mkdir()
    read = given(root / "given")
    before = root / "before"
    error = attempt(partial(prepare, "table", read, before, root / "kept"), root, forked=True).error
    assert error is None, error
    shutil.rmtree(before / CELL / "stages" / "002-animal")
    (before / CELL / "results.json").unlink()
    file = before / "grid" / "ledger.jsonl"
    rows = [row for row in ledger.read(file) if row["cell"]["method"] != "n-lora"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read


def _line(name: str, read: Given, folder: Path) -> list[Any]:
    cell = folder / CELL
    lines = {
        "run": ["run", "--config", cell / "model.json", "--out", cell],
        "learn": ["learn", cell, "--task", read.task],
        "predict": ["predict", cell, read.texts, "--task", "colour", "--out", folder / "a.jsonl"],
        "export": ["export", cell, folder / "plain"],
        "analyze": ["analyze", cell],
    }
    return lines[name] if name in lines else COMMANDS[name].line(read, folder)


def _start(name: str, read: Given, folder: Path, log: Path) -> int:
    """Begin a command in a process, which ends with status 0, or with 2 for one line in the log."""
    pid = os.fork()
    if pid == 0:
        status, said = 0, ""
        try:
            with in_this_process():
                done(_line(name, read, folder), log.with_suffix(".out"))
        except NloraError as error:
            status, said = 2, str(error)
        except BaseException as error:
            status, said = 1, f"{type(error).__name__}: {error}"
        log.write_text(said)
        os._exit(status)
    return pid


def _alone(name: str, read: Given, root: Path) -> float:
    place = _copy(root)
    started = time.monotonic()
    _, status = os.waitpid(_start(name, read, place, root / "log"), 0)
    assert status == 0, (root / "log").read_text()
    return time.monotonic() - started


def _copy(root: Path) -> Path:
    shutil.rmtree(root / "copy", ignore_errors=True)
    return Path(shutil.copytree(root / "before", root / "copy"))


def _pair(
    first: str, second: str, seconds: float, read: Given, root: Path, said: dict[str, None]
) -> str:
    refused, wrong = set[str](), dict[str, None]()
    for part in PARTS:
        place = _copy(root)
        one = _start(first, read, place, root / "first")
        time.sleep(part * seconds)
        two = _start(second, read, place, root / "second")
        for which, pid in (("first", one), ("second", two)):
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            line = (root / which).read_text().replace(f"{place}/", "").replace("|", "/")
            if status == 2 and "\n" not in line:
                refused.add(which)
                said[line] = None
            elif status:
                wrong[" ".join(f"{which}: status {status}: {line}".split())[-300:]] = None
        wrong |= dict.fromkeys(_broken(place))
    if wrong:
        return "; ".join(wrong)
    return {0: "both", 1: "second" if "first" in refused else "first", 2: "neither"}[len(refused)]


def _broken(place: Path) -> list[str]:
    """What is not whole."""
    found = [f"left behind: {name}" for name in leftovers(place)]
    directory = ModelDirectory(place / CELL)
    try:
        for record in directory.stages():
            directory.verify(record)
        directory.tests()
        ledger.read(place / "grid" / "ledger.jsonl")
        if (directory.path / "results.json").exists():
            directory.results()
    except NloraError as error:
        found.append(str(error))
    return found


if __name__ == "__main__":
    main()
