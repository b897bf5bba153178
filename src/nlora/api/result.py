"""What a function of the API returns: JSON that prints as tables and makes a table of pandas."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nlora.errors import NloraError
from nlora.report.shown import as_html, as_text
from nlora.report.table import Cell, Table, Value

if TYPE_CHECKING:
    import pandas


class Shown(ABC):
    """Prints as tables, also in a notebook; `records` are the rows of a table of pandas."""

    @abstractmethod
    def tables(self) -> list[Table]:
        """What is printed."""

    @abstractmethod
    def records(self) -> list[dict[str, Any]]:
        """Rows of plain values, numbers unrounded."""

    def to_pandas(self) -> pandas.DataFrame:
        """The `records` as a table of pandas. Raises NloraError if pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise NloraError("pandas is not installed: pip install pandas") from None
        return pandas.DataFrame.from_records(self.records())

    def __repr__(self) -> str:
        return as_text(self.tables())

    def _repr_html_(self) -> str:
        return as_html(self.tables())


class Result(Shown, Mapping[str, Any]):
    """What was found, by the keys that it has in JSON."""

    def __init__(self, found: Mapping[str, Any]) -> None:
        self._found = dict(found)

    def to_json(self) -> dict[str, Any]:
        """The values as JSON."""
        return self._found

    def __getitem__(self, key: str) -> Any:
        return self._found[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def number(value: float | None, form: str = ".1f") -> Cell:
    """A cell of a number that may not have been measured."""
    return None if value is None else Value(value, form=form)


def numbers(values: Sequence[float | None]) -> list[Cell]:
    """Cells of such numbers."""
    return [number(value) for value in values]
