"""Two figures that the paper lacks: each task's accuracy over the stages, and what is lost."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from typing import Any

from nlora.paper import style
from nlora.paper.figure import Figure
from nlora.paper.material import Material
from nlora.paper.published import ORDERS
from nlora.report.runs import Run
from nlora.report.table import Cell, Table, Value

METHODS = ("seq-lora", "inc-lora", "o-lora", "n-lora")


def curves(material: Material) -> Figure | None:
    """The accuracy of each task after each stage, a panel per method, on the first order run."""
    streams = material.measured(METHODS, (*ORDERS, *material.section.streams))
    methods = [m for m in METHODS if streams and material.section.of(m, streams[0])]
    if not methods:
        return None
    stream, rows = streams[0], list[list[Cell]]()
    for method in methods:
        for stage, task, value in _cells(material.section.of(method, stream)):
            rows.append([method, stage, task, Value(value)])
    columns = ["method", "stage", "task", "accuracy"]
    data = Table("curves", f"Every task over the stages, {stream}", columns, rows, [])

    @contextmanager
    def drawn() -> Iterator[tuple[Any, Any]]:
        across = min(2, len(methods))
        down = ceil(len(methods) / across)
        size: Any = {"width": style.WIDE, "height": 2.0 * down}
        with style.panels(down, across, **size, squeeze=False, sharey=True) as (figure, axes):
            for axis in axes.flat[len(methods) :]:
                axis.set_visible(False)
            tasks = list(dict.fromkeys(row[2] for row in rows))
            for axis, method in zip(axes.flat, methods, strict=False):
                for i, task in enumerate(tasks):
                    own = [row for row in rows if row[0] == method and row[2] == task]
                    axis.plot(
                        [row[1] for row in own],
                        [row[3].mean for row in own],  # type: ignore[union-attr]
                        color=style.CYCLE[i % len(style.CYCLE)],
                        marker=style.MARKERS[i % len(style.MARKERS)],
                        label=task,
                    )
                axis.set(title=method, xlabel="stage", ylabel="accuracy (%)")
                axis.xaxis.get_major_locator().set_params(integer=True)
            handles, labels = axes.flat[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside right center")
            yield figure, axes

    return Figure(data, drawn)


def off_list(material: Material) -> Figure | None:
    """Of the answers after the last stage, the share that is none of the task's labels."""
    streams = material.measured(material.section.methods, (*ORDERS, *material.section.streams))
    rows: list[list[Cell]] = [
        [label, stream, share]
        for label in material.section.methods
        for stream in dict.fromkeys(streams)
        if (share := material.value(label, [stream], _off_list)) is not None
    ]
    if not rows:
        return None
    columns = ["method", "order", "off the list"]
    notes = ["per cent of answers that are no label of their task, mean over tasks"]
    data = Table("off-list", "Answers that are no label of their task", columns, rows, notes)

    @contextmanager
    def drawn() -> Iterator[tuple[Any, Any]]:
        labels = list(dict.fromkeys(str(row[0]) for row in rows))
        orders = list(dict.fromkeys(str(row[1]) for row in rows))
        height = 0.9 + 0.18 * len(labels)
        with style.panels(height=height) as (figure, axis):
            for i, order in enumerate(orders):
                own = [row for row in rows if row[1] == order]
                axis.plot(
                    [row[2].mean for row in own],  # type: ignore[union-attr]
                    [labels.index(str(row[0])) for row in own],
                    style.MARKERS[i % len(style.MARKERS)],
                    color=style.CYCLE[i % len(style.CYCLE)],
                    label=order,
                )
            axis.set_yticks(range(len(labels)), labels)
            axis.invert_yaxis()
            axis.margins(y=0.5 / len(labels))
            axis.set(xlabel="off the list (%)")
            axis.set_xlim(left=0)
            figure.legend(loc="outside upper center", ncols=min(3, len(orders)))
            yield figure, axis

    return Figure(data, drawn)


def _off_list(run: Run) -> Any:
    return run.row.get("off_list", {}).get("average")


def _cells(runs: Sequence[Run]) -> Iterator[tuple[int, str, float]]:
    """Stage, task and accuracy, the mean over seeds, from the stage that learns the task on."""
    matrices = [run.row["accuracy_matrix"] for run in runs]
    columns = runs[0].row["tasks"]
    for task, name in enumerate(runs[0].trained):
        for stage in range(task, len(matrices[0])):
            values = [matrix[stage][columns.index(name)] for matrix in matrices]
            if None not in values:
                yield stage + 1, name, sum(values) / len(values)
