"""How long the runs of some artefacts take on this machine: a short run measured, and scaled up."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from nlora.errors import NloraError
from nlora.paper.artefacts import Artefact
from nlora.paper.make import folder_of, grid_of
from nlora.paper.scale import Scale
from nlora.plan.budgets import value_at
from nlora.plan.resolve import Plan
from nlora.progress import Progress
from nlora.report import ledger
from nlora.study.grid import Cell, Grid
from nlora.study.output import LEDGER, check_grid
from nlora.study.runner import Runner
from nlora.study.worker import Job

PROBED = 64
"""Training and test examples of the short run."""


class Work(NamedTuple):
    """What a run does: training examples gone through, and tests answered."""

    trained: int
    tested: int


def work(plan: Plan) -> Work:
    """What a run with this plan does."""
    stages = plan.stages()
    epochs = plan.run.epochs
    trained = sum(
        value_at(epochs, stage.index) * sum(len(data.train) for data in stage.tasks)
        for stage in stages
    )
    ahead = {"seen": 0, "next": 1, "all": len(plan.stream)}[plan.config.evaluate]
    tests = [len(data.test) for data in plan.stream]
    tested = sum(sum(tests[: stage.index + ahead]) for stage in stages) + sum(tests)
    return Work(trained, tested)


def estimate(
    artefacts: Sequence[Artefact], scale: Scale, out: Path, workers: int, progress: Progress
) -> str:
    """In words, how many runs are left and how long they take, by a short run of `inc-lora`.

    What methods do beside is not counted (EWC's Fisher information, LFPT5's pseudo-samples), nor
    what runs share. Raises NloraError for all that is wrong with the runs, and
    where a folder holds runs of another model or budget.
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
        if not cells:
            continue
        left += len(cells)
        rates = _rates(grids[0], workers, progress)
        total = [work(cell.plan) for cell in cells.values()]
        seconds += rates[0] * sum(w.trained for w in total) + rates[1] * sum(
            w.tested for w in total
        )
    if not left:
        return "all runs are finished"
    return f"{left} runs, about {_spoken(seconds / workers)} by a short one of {PROBED} examples"


def _cells(grids: Iterable[Grid]) -> Iterable[Cell]:
    for grid in grids:
        for stream, point in grid.pairs():
            for seed in grid.seeds:
                yield grid.cell(stream, point, seed)


def _done(path: Path) -> set[tuple[object, ...]]:
    if not path.is_file():
        return set()
    return {tuple(row["cell"].values()) for row in ledger.lines(path) if "error" not in row}


def _rates(grid: Grid, workers: int, progress: Progress) -> tuple[float, float]:
    """Seconds for a training example, and for a test, as one of the runs at a time has it."""
    [point, *_] = [p for p in grid.points if p.method in ("inc-lora", "n-lora")] or grid.points
    own = {name: v for name, v in grid.settings.items() if not isinstance(v, dict)}
    settings = {**own, "epochs": 1}
    tests = min(grid.max_eval or PROBED, PROBED)
    small = replace(grid, points=(point,), max_train=PROBED, max_eval=tests, settings=settings)
    cell = small.cell(grid.streams[0], point, grid.seeds[0])
    first = cell.plan.with_stream(cell.plan.stream[:1])
    rows = []
    with TemporaryDirectory() as place:
        runner = Runner(Path(place), workers, progress, None, lambda job, row: rows.append(row))
        runner.run([Job("probe", cell.key, first)])
    [row] = rows
    if "error" in row:
        raise NloraError(str(row["error"]))
    spent, did = row["seconds_by"], work(first)
    return spent["training"] / did.trained, spent["evaluation"] / did.tested


def _spoken(seconds: float) -> str:
    """A time for people.

    >>> _spoken(20), _spoken(700), _spoken(3e5)
    ('20 s', '12 min', '83 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
