"""How many runs some artefacts need, and how long these take on this machine."""

from collections.abc import Sequence
from pathlib import Path

from nlora.paper.artefacts import Artefact
from nlora.paper.make import folder_of, grids_of
from nlora.paper.scale import Scale
from nlora.plan.resolve import Plan
from nlora.progress import Progress
from nlora.report import ledger
from nlora.study.estimate import in_words, seconds_of
from nlora.study.grid import Grid
from nlora.study.output import LEDGER, check_grid


def left(artefacts: Sequence[Artefact], scale: Scale, out: Path) -> list[tuple[Grid, list[Plan]]]:
    """The runs that artefacts need and that are not finished, by grid.

    Raises NloraError for all that is wrong with the runs, and where a folder holds runs of another
    model or budget.
    """
    found = []
    for model, grid in grids_of(artefacts, scale):
        place = folder_of(model, scale, out)
        check_grid(place, grid)
        done = _done(place / LEDGER)
        cells = (grid.cell(s, point, seed) for s, point in grid.pairs() for seed in grid.seeds)
        found.append((grid, [c.plan for c in cells if tuple(c.key.values()) not in done]))
    return found


def estimate(runs: Sequence[tuple[Grid, Sequence[Plan]]], workers: int, progress: Progress) -> str:
    """In words, how many runs are left and how long they take (`study.estimate`).

    A short run is measured once of each base model. Raises NloraError where it fails.
    """
    of_models: dict[str, tuple[Grid, list[Plan]]] = {}
    for grid, plans in runs:
        of_models.setdefault(grid.model, (grid, []))[1].extend(plans)
    seconds = sum(seconds_of(plans, grid, workers, progress) for grid, plans in of_models.values())
    return in_words(count(runs), seconds) if count(runs) else "all runs are finished"


def count(runs: Sequence[tuple[Grid, Sequence[Plan]]]) -> int:
    """How many there are."""
    return sum(len(plans) for _, plans in runs)


def _done(path: Path) -> set[tuple[object, ...]]:
    if not path.is_file():
        return set()
    return {tuple(row["cell"].values()) for row in ledger.lines(path) if "error" not in row}
