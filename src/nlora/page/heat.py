"""Accuracy matrices as tables whose cells are coloured."""

from dataclasses import dataclass

from nlora.page.measures import mean_matrix, stages_of
from nlora.report.runs import Section


@dataclass(frozen=True)
class Cell:
    """A number in per cent, and whether it is that of the task that was just learned."""

    value: float | None
    own: bool = False


@dataclass(frozen=True)
class Heat:
    """A matrix: a row for each stage, a column for each task."""

    label: str
    stream: str
    seeds: int
    tasks: list[str]
    rows: list[tuple[str, list[Cell]]]


def heats(section: Section) -> list[Heat]:
    """The accuracy matrix of each method on each stream, the mean over seeds."""
    found = []
    for (label, stream), runs in section.cells.items():
        row, own = runs[0].row, set(stages_of(runs[0]))
        tasks = row["tasks"]
        if not row["accuracy_matrix"]:
            continue
        rows: list[tuple[str, list[Cell]]] = []
        if row["zero_shot"]:
            rows.append(("before any training", [Cell(value) for value in row["zero_shot"]]))
        for stage, values in enumerate(mean_matrix(runs)):
            cells = [
                Cell(value, (name, stage) in own) for name, value in zip(tasks, values, strict=True)
            ]
            rows.append((f"after {row['stages'][stage]}", cells))
        found.append(Heat(label, stream, len(runs), tasks, rows))
    return found
