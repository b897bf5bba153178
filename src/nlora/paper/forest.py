"""What goes with forgetting, as a figure: rank correlations with their intervals."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nlora.paper import style
from nlora.paper.figure import Figure
from nlora.paper.material import Material
from nlora.report.predictors import predictors
from nlora.report.table import Cell, Value


def forest(material: Material) -> Figure | None:
    """Spearman's ρ of each quantity with the fall of an earlier task, over all and within pairs.

    A row a quantity; a line is the interval of 95 %. None where too little was run.
    """
    data = predictors(material.section)
    if data is None:
        return None
    rows = data.rows[::-1]  # the first one on top

    @contextmanager
    def drawn() -> Iterator[tuple[Any, Any]]:
        height = 0.6 + 0.15 * len(rows)
        with style.panels(1, 2, width=style.WIDE, height=height, sharey=True) as (figure, axes):
            for axis, column, colour in zip(axes, (3, 4), (style.BLUE, style.RED), strict=True):
                axis.axvline(0, color=style.GREY, linewidth=0.6)
                for place, row in enumerate(rows):
                    _line(axis, place, row[column], colour)
                axis.set(xlim=(-1.05, 1.05), ylim=(-0.7, len(rows) - 0.3))
            axes[0].set_yticks(range(len(rows)), [str(row[0]) for row in rows])
            axes[0].set(xlabel="ρ with the fall of an earlier task")
            axes[1].set(xlabel="ρ within a pair of tasks")
            yield figure, axes

    return Figure(data, drawn)


def _line(axis: Any, place: int, cell: Cell, colour: str) -> None:
    if isinstance(cell, Value):
        if cell.low is not None and cell.high is not None:
            axis.plot([cell.low, cell.high], [place, place], color=colour)
        axis.plot(cell.mean, place, "o", color=colour)
