"""A table: its name, columns, rows of texts and numbers, and what must be said of it."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Value:
    """A number, with its standard deviation or its interval where it has one."""

    mean: float
    spread: float | None = None
    low: float | None = None
    high: float | None = None
    form: str = ".1f"

    def text(self) -> str:
        """For people.

        >>> Value(79.21, 0.32).text(), Value(2.9, low=1.0, high=4.8, form="+.1f").text()
        ('79.2 ± 0.3', '+2.9 [+1.0, +4.8]')
        """
        said = _number(self.mean, self.form)
        if self.spread is not None:
            said += f" ± {_number(self.spread, self.form.replace('+', ''))}"
        if self.low is not None and self.high is not None:
            said += f" [{_number(self.low, self.form)}, {_number(self.high, self.form)}]"
        return said

    def to_json(self) -> dict[str, float]:
        """Unrounded, without what is not there."""
        parts = {"mean": self.mean, "sd": self.spread, "low": self.low, "high": self.high}
        return {name: value for name, value in parts.items() if value is not None}


@dataclass(frozen=True)
class Name:
    """A method's name, and the symbols of what it needs."""

    label: str
    marks: str = ""


Cell = Value | Name | str | int | None


def _number(value: float, form: str) -> str:
    """Without the minus of a zero.

    >>> _number(-0.04, ".1f"), _number(-0.04, "+.1f"), _number(-0.06, "+.1f")
    ('0.0', '+0.0', '-0.1')
    """
    said = format(value, form)
    return said if float(said) else format(0.0, form)


@dataclass
class Table:
    """Rows have a cell per column. `key` is a name fit for a file."""

    key: str
    title: str
    columns: list[str]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Rows as objects by column, numbers unrounded; `marks` are the method's symbols."""
        rows = [
            {
                name: cell.to_json() if isinstance(cell, Value) else plain(cell)
                for name, cell in zip(self.columns, row, strict=True)
            }
            | ({"marks": marks} if (marks := marks_of(row)) else {})
            for row in self.rows
        ]
        return {"key": self.key, "title": self.title, "rows": rows, "notes": self.notes}


def text(cell: Cell) -> str:
    """A cell for people; a dash where nothing was measured."""
    if isinstance(cell, Value):
        return cell.text()
    if isinstance(cell, Name):
        return cell.label + cell.marks
    return "–" if cell is None else str(cell)


def plain(cell: Name | str | int | None) -> str | int | None:
    """A cell without number for programs."""
    return cell.label if isinstance(cell, Name) else cell


def marks_of(row: list[Cell]) -> str:
    """The symbols of the method whose row it is."""
    return "".join(cell.marks for cell in row if isinstance(cell, Name))
