"""Numbers of a page that no table of `report` has: of tasks, over stages, as means over seeds."""

import re
from collections.abc import Sequence
from statistics import fmean

from nlora.report.runs import Run, Section
from nlora.report.table import Cell, Table, Value

Matrix = list[list[float | None]]


def learned_at(run: Run) -> dict[str, int]:
    """By task, the row of the accuracy matrix right after it was learned last.

    A method that learns all tasks at once has one row, and its stage no task's name.
    """
    tasks, found = run.row["tasks"], {}
    for place, title in enumerate(run.row["stages"]):
        name = title if title in tasks else re.sub(r" \(\d+\)$", "", title)
        if name in tasks:
            found[name] = place
    return found


def mean_matrix(runs: Sequence[Run]) -> Matrix:
    """The accuracy matrix, the mean over seeds; None where one of them has no number.

    All seeds must have the same stages, as those of a finished method have.
    """
    matrices = [run.row["accuracy_matrix"] for run in runs]
    return [
        [None if None in cells else fmean(cells) for cells in zip(*rows, strict=False)]
        for rows in zip(*matrices, strict=False)
    ]


def averages(run: Run) -> list[float]:
    """After each stage the mean accuracy of the tasks learned so far."""
    at, tasks = learned_at(run), run.row["tasks"]
    found = []
    for stage, row in enumerate(run.row["accuracy_matrix"]):
        known = [a for name, a in zip(tasks, row, strict=True) if at.get(name, 0) <= stage]
        known = [accuracy for accuracy in known if accuracy is not None]
        found.append(fmean(known) if known else 0.0)
    return found


def tasks_of(run: Run) -> Table:
    """Each task of a run: before any training, right after it was learned, now."""
    row, at = run.row, learned_at(run)
    zero = row["zero_shot"] or [None] * len(row["tasks"])
    off = ((row.get("off_list") or {}).get("matrix") or [[]])[-1]
    matrix = row["accuracy_matrix"]
    rows: list[list[Cell]] = []
    for i, name in enumerate(row["tasks"]):
        then = matrix[at[name]][i] if name in at else None
        now = matrix[-1][i] if matrix else None
        lost = None if then is None or now is None else then - now
        cells = [zero[i], then, now, lost, off[i] if off else None]
        rows.append([name, *(None if cell is None else Value(cell) for cell in cells)])
    columns = ["task", "before any training", "right after it", "now", "lost", "off the list now"]
    notes = [
        "right answers in per cent of test examples; lost: points between right after the task and "
        "now; off the list: per cent of answers that are none of the task's labels"
    ]
    used = [i for i in range(len(columns)) if i == 0 or any(r[i] is not None for r in rows)]
    return Table(
        "tasks",
        "Task by task",
        [columns[i] for i in used],
        [[r[i] for i in used] for r in rows],
        notes,
    )


def costs(section: Section) -> Table | None:
    """What each task cost each method, the mean over seeds; None where no row has it."""
    rows: list[list[Cell]] = []
    kinds = {"examples": ".0f", "steps": ".0f", "training": ".1f", "evaluation": ".1f"}
    for (label, stream), runs in section.cells.items():
        costs = [run.row.get("costs") for run in runs]
        if not all(costs):
            continue
        for number, title in enumerate(runs[0].row["stages"]):
            own = [cost[title] for cost in costs if cost and title in cost]
            cells: list[Cell] = [Value(fmean(c[k] for c in own), form=f) for k, f in kinds.items()]
            memory = Value(max(c["peak_memory_bytes"] for c in own) / 1e9, form=".2f")
            counts = runs[0].row.get("trainable_parameters") or []
            trained = Value(counts[number] / 1e6, form=".3f") if number < len(counts) else None
            rows.append([stream, label, title, *cells, memory, trained])
    if not rows:
        return None
    columns = ["stream", "method", "task", "examples", "steps", "training (s)", "evaluation (s)"]
    columns += ["peak memory (GB)", "trained (million)"]
    notes = ["each stage by itself, the mean over seeds; memory: the most"]
    return Table("costs", "What each task cost", columns, rows, notes)
