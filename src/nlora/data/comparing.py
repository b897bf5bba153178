"""How answers are compared: as published, or so that labels like `C` and `C++` stay apart."""

import string
from collections.abc import Callable, Sequence
from functools import lru_cache

from nlora.data.task import Task

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
    """Whether punctuation counts in a task with these labels.

    It does where without it two of them would be one, or nothing would be left of one.

    >>> punctuated(("C", "C++")), punctuated(("yes", "no.")), punctuated(("+", "-"))
    (True, False, True)
    """
    folded = {normalise(label) for label in labels or ()}
    return labels is not None and (len(folded) < len(labels) or "" in folded)


def comparison(labels: Sequence[str] | None) -> Callable[[str], str]:
    """What answers to a task with these labels, and the labels, are turned into to be compared."""
    return with_punctuation if labels and punctuated(tuple(labels)) else normalise


def told(task: Task) -> str | None:
    """A line about a task in whose answers punctuation counts."""
    if not punctuated(task.labels):
        return None
    groups: dict[str, list[str]] = {}
    for label in task.labels or ():
        groups.setdefault(normalise(label), []).append(label)
    alike = next((g for folded, g in groups.items() if len(g) > 1 or not folded), [])
    shown = " and ".join(f"'{label}'" for label in alike[:2])
    return (
        f"task '{task.name}': punctuation counts when its answers are compared, since it alone "
        f"tells {shown} {'apart' if len(alike) > 1 else 'from nothing'}"
    )
