"""Over which tasks an average is: those without labels, and those only tested, are in fewer."""

from collections.abc import Mapping
from typing import Any

Row = list[float | None]


def counted(results: Mapping[str, Any], row: Row) -> list[float]:
    """The values of a row over `tasks` that its average is of.

    >>> counted({"tasks": ["a", "b", "c"], "only_tested": {"c": {}}}, [1.0, None, 3.0])
    [1.0]
    """
    others = results.get("only_tested", {})
    pairs = zip(results["tasks"], row, strict=True)
    return [value for name, value in pairs if value is not None and name not in others]


def fewer(results: Mapping[str, Any], part: str) -> tuple[int, int] | None:
    """The number of tasks that the average of `part` is of, and that of average accuracy.

    `part` is `among_labels` or `off_list`; None where the two are the same, or not known.
    """
    found = results.get(part) or {}
    rows = found.get("matrix") or found.get("accuracy_matrix")
    row = rows[-1] if rows else found.get("zero_shot")
    matrix = results["accuracy_matrix"]
    whole = matrix[-1] if matrix else results["zero_shot"]
    if not row or not whole:
        return None
    some, all_of_them = len(counted(results, row)), len(counted(results, whole))
    return None if some == all_of_them else (some, all_of_them)


def in_words(counts: tuple[int, int] | None) -> str:
    """What to add to the name of an average.

    >>> in_words((3, 5)), in_words(None)
    (' (3 of 5 tasks)', '')
    """
    return "" if counts is None else f" ({counts[0]} of {counts[1]} tasks)"
