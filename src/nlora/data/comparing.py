"""How answers are compared: as published, or so that labels like `C` and `C++` stay apart."""

import string
from collections.abc import Callable, Sequence
from functools import lru_cache

from nlora.data.task import Example, Task

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Lower case, no ASCII punctuation, single spaces: how evaluation compares answers.

    >>> normalise(" Science or  Technology.")
    'science or technology'
    """
    return " ".join(text.lower().translate(_NO_PUNCTUATION).split())


def with_punctuation(text: str) -> str:
    """Lower case and single spaces, punctuation kept.

    >>> with_punctuation(" >50K "), with_punctuation("<=50K")
    ('>50k', '<=50k')
    """
    return " ".join(text.lower().split())


@lru_cache(maxsize=1024)
def punctuated(labels: tuple[str, ...] | None) -> bool:
    """Whether punctuation counts in a task with these labels or right answers.

    It does where without it two of them would be one, or nothing would be left of one.

    >>> punctuated(("C", "C++")), punctuated(("yes", "no.")), punctuated(("+", "-"))
    (True, False, True)
    """
    folded = {normalise(label) for label in labels or ()}
    return labels is not None and (len(folded) < len(labels) or "" in folded)


def comparison(labels: Sequence[str] | None) -> Callable[[str], str]:
    """What answers to a task with these labels, and the labels, are turned into to be compared."""
    return with_punctuation if labels and punctuated(tuple(labels)) else normalise


def to_tell_apart(task: Task, test: Sequence[Example]) -> tuple[str, ...]:
    """What answers to a task are told apart by: its labels, or the right answers of its test.

    The right answers of a task of free text are those of its test alone, which a model directory
    keeps: a task is compared after each stage as it was after its own. Those that differ in case
    and spaces alone are one.
    """
    if task.labels is not None:
        return task.labels
    return tuple({with_punctuation(e.label): e.label.strip() for e in test}.values())


def told(task: Task, test: Sequence[Example] = ()) -> str | None:
    """A line about a task in whose answers punctuation counts."""
    right = to_tell_apart(task, test)
    if not punctuated(right):
        return None
    groups: dict[str, list[str]] = {}
    for label in right:
        groups.setdefault(normalise(label), []).append(label)
    alike = next((g for folded, g in groups.items() if len(g) > 1 or not folded), [])
    shown = " and ".join(f"'{' '.join(label.split())[:60]}'" for label in alike[:2])
    return (
        f"task '{task.name}': punctuation counts when its answers are compared, since it alone "
        f"tells {shown} {'apart' if len(alike) > 1 else 'from nothing'}"
    )
