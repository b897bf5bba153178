"""Numbers of a page that no table of `report` has: of tasks, over stages, as means over seeds."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from nlora.report.runs import Run, Section
from nlora.report.table import Cell, Table, Value

Matrix = list[list[float | None]]


def stages_of(run: Run) -> list[tuple[str, int]]:
    """The tasks as they were learned, each with the row of the accuracy matrix right after it.

    A task that came again is there once for each stage. A method that learns all tasks at once has
    one row, and its stage no task's name.
    """
    tasks, found = run.row["tasks"], []
    for place, title in enumerate(run.row["stages"]):
        name = title if title in tasks else re.sub(r" \(\d+\)$", "", title)
        if name in tasks:
            found.append((name, place))
    return found


def learned_at(run: Run) -> dict[str, int]:
    """By task, the row of the accuracy matrix right after it was learned last."""
    return dict(stages_of(run))


def first_learned_at(run: Run) -> dict[str, int]:
    """By task, the row of the accuracy matrix right after it was learned first."""
    return dict(reversed(stages_of(run)))


@dataclass(frozen=True)
class Learned:
    """How the tests that one stage of a task brought were answered, per cent."""

    task: str
    title: str
    """The stage's, where the task has several."""
    tests: int
    then: float | None
    """Right after the stage."""
    best: float | None
    """The best from then on, but for the last stage."""
    now: float | None


def learned(run: Run) -> list[Learned]:
    """Each stage of each task by its own tests, as the run's folder tells; without one, by the
    accuracy matrix, which has no tests of single stages."""
    row, places = run.row, {name: i for i, name in enumerate(run.row["tasks"])}
    if "history" not in row:
        return [
            _from_matrix([line[places[name]] for line in row["accuracy_matrix"][at:]], name)
            for name, at in learned_at(run).items()
        ]
    counts = Counter(task["name"] for stage in row["history"] for task in stage["tasks"])
    return [
        Learned(
            task["name"],
            title if counts[task["name"]] > 1 else task["name"],
            task["rows"]["test"][0] if task["rows"] else 1,
            task["then"],
            None if task["forgotten"] is None else task["now"] + task["forgotten"],
            task["now"],
        )
        for title, stage in zip(row["stages"], row["history"], strict=True)
        for task in stage["tasks"]
    ]


def _from_matrix(values: list[float | None], name: str) -> Learned:
    """Of a task's accuracies since it was learned."""
    best = max((value for value in values[:-1] if value is not None), default=None)
    return Learned(name, name, 1, values[0], best, values[-1])


def falls(run: Run) -> dict[str, tuple[float, float]]:
    """By task that was learned before the last stage, its best and what it is now.

    Both are over the same tests: those that its stages before the last one brought.
    """
    found: dict[str, list[Learned]] = {}
    for one in learned(run):
        if one.best is not None and one.now is not None:
            found.setdefault(one.task, []).append(one)
    return {
        name: (
            fmean([one.best or 0.0 for one in some], [one.tests for one in some]),
            fmean([one.now or 0.0 for one in some], [one.tests for one in some]),
        )
        for name, some in found.items()
    }


def mean_matrix(runs: Sequence[Run]) -> Matrix:
    """The accuracy matrix, the mean over seeds; None where one of them has no number.

    All seeds must have the same stages, as those of a finished method have.
    """
    matrices = [run.row["accuracy_matrix"] for run in runs]
    return [
        [None if None in cells else fmean(cells) for cells in zip(*rows, strict=False)]
        for rows in zip(*matrices, strict=False)
    ]


def untrained(run: Run) -> float | None:
    """The mean accuracy before any training, of the tasks that are learned later, or of all where
    none is; None where not all of these were asked."""
    zero = run.row["zero_shot"] or []
    wanted = run.trained or run.row["tasks"]
    found = [a for name, a in zip(run.row["tasks"], zero, strict=False) if name in wanted]
    known = [accuracy for accuracy in found if accuracy is not None]
    return fmean(known) if known and len(known) == len(wanted) else None


def averages(run: Run) -> list[float]:
    """After each stage the mean accuracy of the tasks learned so far."""
    at, tasks, trained = first_learned_at(run), run.row["tasks"], run.trained
    found = []
    for stage, row in enumerate(run.row["accuracy_matrix"]):
        pairs = zip(tasks, row, strict=True)
        known = [a for name, a in pairs if name in trained and at.get(name, 0) <= stage]
        known = [accuracy for accuracy in known if accuracy is not None]
        found.append(fmean(known) if known else 0.0)
    return found


def tasks_of(run: Run) -> Table:
    """Each task of a run, stage by stage: before any training, right after it was learned, now."""
    row, matrix = run.row, run.row["accuracy_matrix"]
    zero = row["zero_shot"] or [None] * len(row["tasks"])
    off = ((row.get("off_list") or {}).get("matrix") or [[]])[-1]
    by_task: dict[str, list[Learned]] = {}
    for one in learned(run):
        by_task.setdefault(one.task, []).append(one)
    rows: list[list[Cell]] = []
    for i, name in enumerate(row["tasks"]):
        untrained = Learned(name, name, 1, None, None, matrix[-1][i] if matrix else None)
        stages = by_task.get(name, [untrained])
        for one in stages:
            lost = None if one.best is None or one.now is None else one.best - one.now
            before = zero[i] if one is stages[0] else None
            unlisted = off[i] if off and one is stages[-1] else None
            cells = [before, one.then, one.now, lost, unlisted]
            rows.append([one.title, *(None if cell is None else Value(cell) for cell in cells)])
    columns = ["task", "before any training", "right after it", "now", "lost", "off the list now"]
    notes = [
        "right answers in per cent of test examples; lost: points from the best since the task was "
        "learned, the last stage left out, to now; off the list: per cent of answers that are none "
        "of the task's labels; of a task with several stages each has a row, by the tests that it "
        "brought"
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
