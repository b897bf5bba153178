"""The rows of what is in memory: lists, tables of pandas, data sets of `datasets`, functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from typing import Any

from nlora.data.rows import Rows, check_names
from nlora.errors import NloraError

_MISSING = ("NAType", "NaTType")
"""What pandas has in place of a value that is not there."""

_DEEPEST = 100
"""So deep lists and mappings may lie in each other; what is read later is then not too deep."""


@dataclass(frozen=True, eq=False)
class InMemory:
    """Rows in memory, in place of a file. `title` is what messages call them.

    `value` is an iterable of rows, a table of pandas, a `Dataset` (or a dictionary of them by
    split) of `datasets`, or a function that returns one of these. A row is a mapping, (text,
    label), a list of messages or, where no answer is needed, a text.
    """

    value: Any
    title: str

    def __str__(self) -> str:
        return self.title

    def opened(self) -> Any:
        """The value; of a function what it returns."""
        return self.value() if callable(self.value) else self.value


def read_memory(source: InMemory, split: str, answers: bool = True) -> Rows:
    """The rows, numbers as text, as they are read from files. Raises NloraError for what has none.

    >>> read_memory(InMemory([("a", 1), {"text": "b", "label": True}], "train"), "train").values
    [{'text': 'a', 'label': '1'}, {'text': 'b', 'label': True}]
    """
    found = source.opened()
    if is_dataset(found):
        from nlora.data.tables import read_dataset

        return read_dataset(found, source.title, split, answers)
    if hasattr(found, "to_dict") and hasattr(found, "columns"):
        check_names(f"{source}", [str(name) for name in found.columns])
        found = found.to_dict("records")
    if isinstance(found, str | bytes | Mapping) or not isinstance(found, Iterable):
        raise NloraError(
            f"{source}: give a list of rows, a table of pandas or a data set of `datasets`, not "
            f"{type(found).__name__}"
        )
    values = [_row(row, f"{source}, row {i}") for i, row in enumerate(found, start=1)]
    return Rows(source.title, values, lambda i: f"{source}, row {i + 1}", "memory")


def is_dataset(value: object) -> bool:
    """Whether this is a `Dataset` of `datasets`, or a dictionary of them by split."""
    parts = list(value.values()) if isinstance(value, dict) else [value]
    return bool(parts) and all(
        hasattr(part, "features") and hasattr(part, "with_format") and hasattr(part, "num_rows")
        for part in parts
    )


def _row(row: Any, place: str) -> object:
    if hasattr(row, "_asdict"):
        row = row._asdict()
    if isinstance(row, Mapping | str):
        return _written(row, place)
    parts = list(row) if isinstance(row, list | tuple) else []
    if parts and all(isinstance(part, Mapping) for part in parts):
        return {"messages": _written(parts, place)}
    if len(parts) != 2:
        raise NloraError(f"{place}: a row is a mapping with text and label, or (text, label)")
    return {"text": _written(parts[0], place), "label": _written(parts[1], place)}


def _written(value: Any, place: str, depth: int = 0) -> Any:
    """The value as files have it: numbers are the text that one would write, NaN is missing."""
    if value is None or isinstance(value, str | bool):
        return value
    if depth > _DEEPEST:
        raise NloraError(f"{place}: nested too deeply")
    if isinstance(value, Mapping):
        return {str(key): _written(inner, place, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_written(inner, place, depth + 1) for inner in value]
    if type(value).__name__ in _MISSING:
        return None
    if hasattr(value, "tolist"):  # NumPy's numbers and arrays
        return _written(value.tolist(), place, depth)
    if isinstance(value, float):
        return None if math.isnan(value) else repr(value)
    return str(value) if isinstance(value, int | Decimal | date | time) else value
