"""The crash matrix: each point of what writes files, with each fault.

    python -m benchmarks.crashes [--out docs/results/crashes.md]

A point is a write, sync, rename, lock, removal or creation. Linux only, from a checkout.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.crashes import Crash, crashes
from tests.faults import FAULTS
from tests.operations import OPERATIONS

HEAD = """# Crashes

Written by `python -m benchmarks.crashes`. Each call that changes something on the disk fails
once: by an error of the system (no space, a failing disk, no permission), or by SIGKILL at that
very call. What a reader sees then is as before (b), as after (a), or between two steps (s: the
stage is there, and `results.json` not yet). The same once more must end as if nothing had
happened, an error must be one line with the path, and no draft may stay after an error. Where one
of these does not hold, the cell says what. Syncs are counted, not done. Whole commands that load
a model are not in this table.
"""


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/results/crashes.md"))
    out = parser.parse_args().out
    parts, count, wrong = [], 0, 0
    for name, operation in OPERATIONS.items():
        with TemporaryDirectory() as folder:
            before = Path(folder) / "before"
            before.mkdir()
            operation.prepare(before)
            found = list(crashes(operation.act, before, Path(folder), operation.seen))
        count += len(found)
        wrong += sum(bool(crash.wrong) for crash in found)
        parts.append(f"\n## {name[0].upper()}{name[1:]}\n\n{_table(found)}")
    told = f"\n{count} faults, of which {wrong} broke what must hold.\n"
    out.write_text(HEAD + told + "".join(parts), encoding="utf-8")
    print(told.strip())


def _table(found: list[Crash]) -> str:
    rows = [f"| point | {' | '.join(FAULTS)} |", "| --- |" + " --- |" * len(FAULTS)]
    for start in range(0, len(found), len(FAULTS)):
        group = {crash.fault: crash for crash in found[start : start + len(FAULTS)]}
        cells = " | ".join(_cell(group[fault]) for fault in FAULTS)
        rows.append(f"| {found[start].point} | {cells} |")
    return "\n".join(rows) + "\n"


def _cell(crash: Crash) -> str:
    if crash.wrong:
        return "; ".join(crash.wrong).replace("|", "/")
    return {"before": "b", "between": "s", "after": "a"}[crash.left]


if __name__ == "__main__":
    main()
