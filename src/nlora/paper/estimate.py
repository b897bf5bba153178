"""How many runs some artefacts need, and how long these take on this machine."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from nlora.paper.artefacts import Artefact
from nlora.paper.make import folder_of, grid_of
from nlora.paper.scale import Scale
from nlora.progress import Progress
from nlora.report import ledger
from nlora.study.estimate import in_words, seconds_of
from nlora.study.grid import Cell, Grid
from nlora.study.output import LEDGER, check_grid


def estimate(
    artefacts: Sequence[Artefact], scale: Scale, out: Path, workers: int, progress: Progress
) -> str:
    """In words, how many runs are left and how long they take (`study.estimate`).

    Raises NloraError for all that is wrong with the runs, and where a folder holds runs of another
    model or budget.
    """
    seconds, left = 0.0, 0
    by_folder: dict[Path, list[Grid]] = {}
    for artefact in artefacts:
        grid = grid_of(artefact, scale)
        by_folder.setdefault(folder_of(artefact, scale, out), []).append(grid)
    for place, grids in by_folder.items():
        for grid in grids:
            check_grid(place, grid)
        done = _done(place / LEDGER)
        cells = {c.name: c for c in _cells(grids) if tuple(c.key.values()) not in done}
        left += len(cells)
        plans = [cell.plan for cell in cells.values()]
        seconds += seconds_of(plans, grids[0], workers, progress)
    return in_words(left, seconds) if left else "all runs are finished"


def _cells(grids: Iterable[Grid]) -> Iterable[Cell]:
    for grid in grids:
        for stream, point in grid.pairs():
            for seed in grid.seeds:
                yield grid.cell(stream, point, seed)


def _done(path: Path) -> set[tuple[object, ...]]:
    if not path.is_file():
        return set()
    return {tuple(row["cell"].values()) for row in ledger.lines(path) if "error" not in row}
