"""What a script's arguments may be: one of another type is refused in one line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Set
from numbers import Real
from pathlib import Path
from typing import Any

from nlora.errors import NloraError, shown

_TEXT = (str,), "a text"
_PLACE = (str, os.PathLike), "a path"
_NUMBER = (Real,), "a number"
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "path": _PLACE,
    "out": _PLACE,
    "source": _PLACE,
    "data": _PLACE,
    "config": _PLACE,
    "name": _TEXT,
    "task": _TEXT,
    "instruction": _TEXT,
    "encoding": _TEXT,
    "recipe": _TEXT,
    "repair": _TEXT,
    "kind": _TEXT,
    "adapter": _TEXT,
    "hold_out": _NUMBER,
    "hold_out_seed": _NUMBER,
    "max_forgetting": _NUMBER,
    "labels": ((str, Iterable), "a list of texts"),
    "label_names": ((str, Iterable), "a list of texts"),
    "columns": ((str, Mapping), "a mapping such as {'text': 'title', 'label': 'team'}"),
    "thresholds": ((str, float, int, Iterable), "a number, a text such as '0.1rms', or a list"),
    "settings": ((Mapping,), "a mapping of names to values"),
}
"""By name, the same wherever it is an argument."""
_NEEDED = (
    *("path", "out", "source", "name", "kind", "adapter", "hold_out", "hold_out_seed"),
    "thresholds",
)
"""Those that cannot be None."""


def check(**given: Any) -> None:
    """Raise NloraError for an argument of another type than one of its name has.

    >>> check(instruction=5)
    Traceback (most recent call last):
    nlora.errors.NloraError: 'instruction' is a text, not int
    """
    for name, value in given.items():
        kinds, what = _KINDS[name]
        if value is None and name not in _NEEDED:
            continue
        if not isinstance(value, kinds) or isinstance(value, bytes):
            raise NloraError(f"'{name}' is {what}, not {type(value).__name__}")
        if (kinds, what) == _PLACE and "\0" in str(value):
            raise NloraError(f"'{name}' cannot name a file: {shown(str(value))} holds a NUL")


def in_order(name: str, value: Any) -> Any:
    """Texts in an order, as a list; a single text and None stay. Raises NloraError for the others.

    >>> in_order("labels", ("yes", "no")), in_order("labels", "auto")
    (['yes', 'no'], 'auto')
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Set | Mapping):
        raise NloraError(f"'{name}' is a list of texts in their order, not {type(value).__name__}")
    return list(plain(value))


def by_number(names: Any) -> list[str] | None:
    """Names of the numbers 0, 1, …: a list of them, a text with commas, or a mapping of numbers.

    >>> by_number("no, yes"), by_number({"1": "yes", "0": "no"})
    (['no', 'yes'], ['no', 'yes'])
    """
    if isinstance(names, Mapping):
        numbers = {str(number): plain(name) for number, name in names.items()}
        if numbers.keys() != {str(i) for i in range(len(numbers))}:
            raise NloraError("'label_names' has the numbers 0, 1, … of labels as its keys")
        return [numbers[str(i)] for i in range(len(numbers))]
    if isinstance(names, str):
        return [name.strip() for name in names.split(",")]
    return in_order("label_names", names)


def place(**given: Any) -> Path:
    """The path of one argument, `~` expanded. Raises NloraError as `check` does."""
    check(**given)
    [value] = given.values()
    return Path(value).expanduser()


def plain(value: Any) -> Any:
    """The value with NumPy's numbers and arrays, and pandas' columns, as Python's.

    >>> import numpy as np
    >>> plain({"rank": np.int64(2), "betas": (np.float64(0.5), 1)})
    {'rank': 2, 'betas': [0.5, 1]}
    """
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value.tolist() if hasattr(value, "tolist") else value
