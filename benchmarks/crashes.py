"""The crash matrix: each point of what writes files, with each fault.

    python -m benchmarks.crashes [--out docs/results/crashes.md] [--points 16] [--only compare]

A point is a write, sync, rename, lock, removal or creation. Of a command that has more than
`--points` of them, so many are tried, spread over all. Linux only, from a checkout.
"""

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.pages import put
from tests.commands import COMMANDS, do, given, prepare, same
from tests.crashes import Crash, Way, crashes
from tests.faults import FAULTS, attempt
from tests.operations import OPERATIONS

OPERATIONS_ALONE = "operations"

HEAD = """\
Each call that changes something on the disk fails once: by an error of the system (no space, a
failing disk, no permission), or by SIGKILL at that very call. What a reader sees then is as before
(b), as after (a), or between two steps (s: as a stage without its `results.json`, or one table of
several). The same once more must end as if nothing had happened and leave no draft behind, and an
error must be one line with the path, after which no draft stays. Where one of these does not hold,
the cell says what. A `save` is of safetensors, which writes by itself.
"""
WHOLE = """\
The whole command on a tiny random T5 with two tasks of 6 examples, its process forked from one that
has the libraries imported; the cells of `compare` run in threads of that process. At each point a
kill, and one of the errors in turn (·: not tried). "As if nothing had happened" is said of all
files, but for seconds, bytes of memory and hashes of these. A cell of `compare` that fails is a row
of its ledger, is done again by the same command, and does not keep the others from being done; the
order of rows does not count.
"""


def main() -> None:
    """Measure, and write the page, or one section of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/results/crashes.md"))
    parser.add_argument("--points", type=int, default=16)
    parser.add_argument("--only", choices=(OPERATIONS_ALONE, *COMMANDS))
    options = parser.parse_args()
    if options.only in (None, OPERATIONS_ALONE):
        parts, counts = [], []
        for name, found in _operations():
            parts.append(f"### {name[0].upper()}{name[1:]}\n\n{_told(found)}\n\n{_table(found)}")
            counts.append(len(found))
        put(options.out, "Operations", "\n".join([HEAD, *parts]))
        print(f"operations: {sum(counts)} faults", flush=True)
    if options.only == OPERATIONS_ALONE:
        return
    put(options.out, "Whole commands", WHOLE)
    names = list(COMMANDS) if options.only is None else [options.only]
    for name, found in _commands(names, options.points):
        put(options.out, f"`nlora {name}`", f"{_told(found)}\n\n{_table(found)}")
        print(f"{name}: {_told(found)}", flush=True)


def _operations() -> Iterator[tuple[str, list[Crash]]]:
    for name, operation in OPERATIONS.items():
        with TemporaryDirectory() as folder:
            before = Path(folder) / "before"
            before.mkdir()
            operation.prepare(before)
            found = crashes(operation.act, before, Path(folder), operation.seen, Way(syncs=True))
            yield name, list(found)


def _commands(names: Sequence[str], points: int) -> Iterator[tuple[str, list[Crash]]]:
    import tests.preloaded  # noqa: F401  (forked processes need not import these again)

    with TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "given").mkdir()
        (root / "kept").mkdir()
        read = given(root / "given")
        for name in names:
            before, scratch = root / name / "before", root / name
            scratch.mkdir()
            # This process must stay without threads, which a fork would not have.
            make = partial(prepare, name, read, before, root / "kept")
            assert (error := attempt(make, before, forked=True).error) is None, error
            way = Way(
                forked=True,
                syncs=True,
                points=points,
                one_error=True,
                others_go_on=COMMANDS[name].others_go_on,
            )
            yield name, list(crashes(partial(do, name, read), before, scratch, same, way))


def _told(found: list[Crash]) -> str:
    if not found:
        return "It writes nothing."
    broken = sum(bool(crash.wrong) for crash in found)
    points, of = len({crash.at for crash in found}), found[0].of
    where = f" at {points} of its {of} points" if points < of else ""
    return f"{len(found)} faults{where}, of which {broken} broke what must hold."


def _table(found: list[Crash]) -> str:
    if not found:
        return ""
    groups: dict[int, list[Crash]] = {}
    for crash in found:
        groups.setdefault(crash.at, []).append(crash)
    rows = [f"| point | {' | '.join(FAULTS)} |", "| --- |" + " --- |" * len(FAULTS)]
    for group in groups.values():
        cells = {crash.fault: _cell(crash) for crash in group}
        rows.append(f"| {group[0].point} | {' | '.join(cells.get(f, '·') for f in FAULTS)} |")
    return "\n".join(rows) + "\n"


def _cell(crash: Crash) -> str:
    if crash.wrong:
        return " ".join("; ".join(crash.wrong).replace("|", "/").split())
    return {"before": "b", "between": "s", "after": "a"}[crash.left]


if __name__ == "__main__":
    main()
