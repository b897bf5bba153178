"""Tables 1 to 4: in the paper's form, and with the paper's numbers beside ours."""

from collections.abc import Callable
from statistics import fmean
from typing import Any

from nlora.paper.figure import beside, beside_row
from nlora.paper.material import Material
from nlora.paper.published import LARGE, STANDARD, TABLE_1, TABLE_2, TABLE_3, TABLE_4, Rows
from nlora.report.footnotes import legend, marked
from nlora.report.overlap import MEASURES
from nlora.report.runs import Run
from nlora.report.table import Cell, Table, Value

BENCHMARKS = {"standard": STANDARD, "large": LARGE}


def table_1(material: Material) -> list[Table]:
    """Average accuracy of every method on both benchmarks."""
    return _accuracies("table-1", "Average accuracy, all methods", TABLE_1, material)


def table_2(material: Material) -> list[Table]:
    """Average accuracy of N-LoRA and O-LoRA on the larger model."""
    return _accuracies("table-2", "Average accuracy, the larger model", TABLE_2, material)


def table_3(material: Material) -> list[Table]:
    """Overlap of the updates of N-LoRA and O-LoRA, by order."""
    streams = [s for group in BENCHMARKS.values() for s in group]
    columns = ["order", *(f"{name} {m}" for name, rows in TABLE_3.items() for m in rows)]
    rows: list[list[Cell]] = []
    measured = [s for s in streams if material.measured(list(TABLE_3["OO"]), [s])]
    for order in measured + (["average"] if len(measured) > 1 else []):
        over = measured if order == "average" else [order]
        cells = [
            material.value(method, over, MEASURES[name], ".3g")
            for name, published in TABLE_3.items()
            for method in published
        ]
        rows.append([order, *cells])
    notes = ["lower is more orthogonal; both fall when an update merely shrinks"]
    ours = Table("table-3", f"Overlap of updates. {material.section.title}", columns, rows, notes)
    rows_beside = [
        row
        for name, published in TABLE_3.items()
        for row in _rows_beside(published, material, MEASURES[name], ".3g", name)
    ]
    return [ours, beside("table-3", rows_beside)]


def table_4(material: Material) -> list[Table]:
    """Average accuracy of O-LoRA with N-LoRA's penalty on top."""
    return _accuracies("table-4", "Average accuracy, O-LoRA with N-LoRA", TABLE_4, material)


def _average(run: Run) -> Any:
    return run.row["average_accuracy"]


def _accuracies(key: str, title: str, published: Rows, material: Material) -> list[Table]:
    """The paper's form (a column per order, and the mean over a benchmark's), and beside it."""
    orders = {s for row in published.values() for s in row}
    groups = {n: [s for s in g if s in orders] for n, g in BENCHMARKS.items() if set(g) & orders}
    columns = ["method"]
    for name, streams in groups.items():
        columns += [*streams, f"{name}: average"]
    rows: list[list[Cell]] = []
    for method in published:
        cells: list[Cell] = [marked(material.section, method)]
        for streams in groups.values():
            cells += [material.value(method, [s], _average) for s in streams]
            cells.append(material.value(method, streams, _average))
        rows.append(cells)
    notes = [
        "average accuracy after the last task, per cent; ± standard deviation over seeds; –: not "
        "run",
        *legend(material.section, list(published)),
        *material.section.failures(),
    ]
    ours = Table(key, f"{title}. {material.section.title}", columns, rows, notes)
    return [ours, beside(key, _rows_beside(published, material, _average))]


def _rows_beside(
    published: Rows,
    material: Material,
    of: Callable[[Run], Any],
    form: str = ".1f",
    what: str = "accuracy",
) -> list[list[Cell]]:
    """For each method and order that was run: what, ours, the paper's, and the difference."""
    rows: list[list[Cell]] = []
    for method, numbers in published.items():
        pairs = []
        for stream, theirs in numbers.items():
            ours = material.value(method, [stream], of, form)
            if ours is not None:
                pairs.append((ours.mean, theirs))
                rows.append(beside_row(method, stream, what, ours, theirs, form))
        if len(pairs) > 1:
            mean = Value(fmean(o for o, _ in pairs), form=form)
            rows.append(
                beside_row(method, "their average", what, mean, fmean(t for _, t in pairs), form)
            )
    return rows
