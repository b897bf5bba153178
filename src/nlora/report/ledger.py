"""Ledger rows: one finished run each, with all that is needed to repeat and to compare it.

python -m nlora.report.ledger MODEL_DIR… >> docs/results/order-1.jsonl
"""

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from nlora.data.task import digest
from nlora.store.directory import ModelDirectory

_CONFIGURATION = ("model", "method", "tasks", "seed", "max_train", "max_eval", "evaluate")


def row(directory: ModelDirectory) -> dict[str, Any]:
    """The ledger row of a model directory. Paths do not enter it, so it holds on any machine."""
    document = directory.config()
    configuration = {key: document[key] for key in _CONFIGURATION}
    configuration["settings"] = document["settings"]
    records = directory.stages()
    fingerprints: dict[str, str] = {}
    for record in records:
        fingerprints |= record.fingerprints
    return {
        "configuration": configuration,
        "hash": digest(configuration),
        "base": document["base"],
        "data": fingerprints,
        "versions": document["versions"],
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
        },
        **directory.results(),
        "losses": {r.name: _last(directory, r) for r in records},
        "notes": {r.name: r.notes for r in records},
    }


def _last(directory: ModelDirectory, record: Any) -> dict[str, float]:
    """Each loss term's mean over the last quarter of the stage."""
    lines = (directory.stage_path(record) / "losses.jsonl").read_text("utf-8").splitlines()
    steps = [json.loads(line) for line in lines[-max(len(lines) // 4, 1) :]]
    names = [k for k in steps[-1] if k not in ("step", "epoch")]
    return {name: sum(step[name] for step in steps) / len(steps) for name in names}


def main() -> None:
    """Print the rows of the model directories named on the command line."""
    for name in sys.argv[1:]:
        print(json.dumps(row(ModelDirectory(Path(name))), ensure_ascii=False))


if __name__ == "__main__":
    main()
