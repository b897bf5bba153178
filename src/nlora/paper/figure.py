"""A figure: the numbers that it shows, as a table, and how they are drawn."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlora.paper import style
from nlora.report.formats import comma_separated
from nlora.report.table import Cell, Table, Value


@dataclass(frozen=True)
class Figure:
    """`data` goes beside it as CSV."""

    data: Table
    drawn: Callable[[], AbstractContextManager[tuple[Any, Any]]]
    """Gives the figure and its axes, as `style.panels` does, with everything drawn."""
    told: tuple[list[Cell], ...] = ()
    """The numbers that the paper tells of its figure, as rows of `beside`."""

    @property
    def tables(self) -> list[Table]:
        """What is drawn, and ours beside the paper's where it tells any number."""
        return [self.data, *([beside(self.data.key, self.told)] if self.told else [])]

    def write(self, place: Path) -> list[Path]:
        """PDF, SVG, PNG and CSV in a folder."""
        paths = []
        for table in self.tables:
            paths.append(place / f"{table.key}.csv")
            paths[-1].write_text(comma_separated(table), encoding="utf-8")
        with self.drawn() as (figure, _):
            return [*style.save(figure, place, self.data.key), *paths]


def beside_row(
    method: str, order: str, what: str, ours: Value, theirs: float, form: str
) -> list[Cell]:
    """A row of `beside`: a number of ours, the paper's, and the difference."""
    difference = Value(ours.mean - theirs, form=f"+{form}")
    return [method, order, what, ours, Value(theirs, form=form), difference]


def beside(key: str, rows: Iterable[list[Cell]]) -> Table:
    """Our numbers beside the paper's."""
    columns = ["method", "order", "what", "ours", "paper", "difference"]
    return Table(f"{key}-beside", "Ours beside the paper's", columns, list(rows), [])
