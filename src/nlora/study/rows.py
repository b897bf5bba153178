"""The ledger row of a cell: its model directory, the geometry of its updates, and what made it.

python -m nlora.study.rows MODEL_DIR… >> docs/results/ledger.jsonl
"""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import nlora
from nlora.analysis.adapters import read_stages
from nlora.analysis.report import analyse
from nlora.errors import NloraError
from nlora.lowrank.supports import Threshold
from nlora.report import ledger
from nlora.store.directory import ModelDirectory

THRESHOLDS = ("0.1rms", "1e-3")
"""Of collisions: relative to each matrix' own size, and absolute."""

DIGITS = 6


def row(directory: ModelDirectory, made_by: str | None) -> dict[str, Any]:
    """A model directory's row with the geometry of its LoRA updates, as `analyze --json` has it.

    `made_by` is the `commit` of nlora that trained it.
    """
    found = ledger.row(directory)
    return {**found, "commit": made_by, "geometry": _geometry(directory, found["needs"])}


def commit() -> str | None:
    """The commit of nlora's source, "-dirty" if it was changed since; None outside a checkout."""
    folder = Path(nlora.__file__).parent
    try:
        _git(folder, "ls-files", "--error-unmatch", "__init__.py")  # not in somebody else's
        return _git(folder, "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _geometry(directory: ModelDirectory, needs: dict[str, Any]) -> dict[str, Any] | None:
    if needs["carrier"] != "lora" or not directory.stages():
        return None
    try:
        adapters = read_stages(directory.path)
        return _rounded(analyse(adapters, [Threshold.parse(text) for text in THRESHOLDS]))
    except NloraError as error:  # a method may keep other updates than adapters
        return {"error": str(error).replace(f"{directory.path}/", "")}


def _rounded(value: Any) -> Any:
    """The same JSON with as many digits as mean something."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value


def main() -> None:
    """Print the rows of the model directories named on the command line."""
    for name in sys.argv[1:]:
        print(json.dumps(row(ModelDirectory(Path(name)), commit()), ensure_ascii=False))


if __name__ == "__main__":
    main()
