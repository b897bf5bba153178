"""What a comparison would run, and how long that takes here, before anything is run or written."""

from pathlib import Path
from typing import Any

from nlora.progress import NoProgress, Progress
from nlora.study import output
from nlora.study.compare import (
    Comparison,
    cell_of,
    check_asked,
    rows_of,
    trial_of,
    trials,
)
from nlora.study.estimate import in_words, seconds_of
from nlora.study.grid import Grid


def preview(
    grid: Grid, out: Path, workers: int = 1, progress: Progress | None = None
) -> dict[str, Any]:
    """`cells` with their states, how many `trials` of tuning are left, and all `told` in words.

    The time is that of a short run here, scaled up (`study.estimate`). Nothing is written to `out`.
    Raises NloraError for all that `compare` refuses.
    """
    check_asked(grid, workers)
    output.check_grid(out, grid)
    progress = progress or NoProgress()
    comparison = Comparison(grid, out, workers, progress)
    comparison.check()
    known = {
        cell_of(r): "failed" if "error" in r else "finished" for r in rows_of(out / output.LEDGER)
    }
    cells = [(cell, known.get(cell_of({"cell": cell.key}), "left")) for cell in comparison.cells]
    left = [cell.plan for cell, state in cells if state != "finished"]
    tuned = {trial_of(row) for row in trials(out / output.TUNING) if "error" not in row}
    jobs = (
        [job for pair in grid.pairs() for job in comparison.trials_of(*pair)] if grid.tune else []
    )
    trying = [job.plan for job in jobs if trial_of(job.key) not in tuned] if left else []
    told = f"{len(cells) - len(left)} of {len(cells)} cells are finished"
    if left:
        seconds = seconds_of([*trying, *left], grid, workers, progress)
        told += f"; left: {in_words(len(trying) + len(left), seconds)}"
        if trying:
            told += f", {len(trying)} of them trials of tuning"
    return {
        "cells": [{**cell.key, "state": state} for cell, state in cells],
        "trials": len(trying),
        "told": told,
    }
