"""How often each label stands in a task's examples."""

from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from nlora.data.task import Example
from nlora.errors import option

FREE = "free text"
"""What stands for the number of labels where there are none."""
_FEW = 20
"""Without a list of labels, answers are counted where there are no more different ones."""
_LONG = 60
_OFTEN, _ALIKE = 20, 0.8
"""A label is taken for a slip of one that stands there so many times as often, and is so alike."""
_SHOWN = 12


def label_counts(examples: Sequence[Example], labels: Sequence[str] | None) -> dict[str, int]:
    """How many examples have each label, the most frequent first; labels that none has too.

    Empty for free text: without `labels`, and with many different answers, or long ones.
    """
    counts = Counter(example.label for example in examples)
    if labels is None and (len(counts) > _FEW or any(len(label) > _LONG for label in counts)):
        return {}
    every = dict.fromkeys(labels or (), 0) | counts
    return dict(sorted(every.items(), key=lambda pair: -pair[1]))


def told_free(counts: Mapping[str, int]) -> str:
    """What to say of a file of rows whose few answers are free text."""
    made = f"{option('labels', 'auto')} makes the {len(counts)} in it labels"
    return f"answers are free text; {made}"


def majority(counts: Mapping[str, int]) -> float | None:
    """The share of the most frequent label, which is what a constant answer scores.

    >>> majority({"good": 3, "bad": 1})
    0.75
    """
    total = sum(counts.values())
    return max(counts.values()) / total if total else None


def slips(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """Pairs of a rare label and a frequent one that it may be a misspelling of.

    Labels that differ in digits alone, or from the first letter on, are none.

    >>> slips({"positive": 400, "negative": 380, "postive": 1, "grade 1": 300, "grade 2": 1})
    [('postive', 'positive')]
    """
    found = []
    for rare, count in counts.items():
        asked = _letters(rare)
        frequent = {
            _letters(label): label
            for label, often in counts.items()
            if often >= _OFTEN * count > 0 and _letters(label)[:1] == asked[:1]
        }
        near = get_close_matches(asked, frequent, 1, _ALIKE)
        if near and near != [asked]:
            found.append((rare, frequent[near[0]]))
    return found


def told_slips(counts: Mapping[str, int]) -> str | None:
    """`slips` in a line.

    >>> told_slips({"positive": 400, "postive": 1})
    "label 'postive' (1 of 401 rows) is nearly 'positive' (400): if it is a slip, mend it"
    """
    total, found = sum(counts.values()), slips(counts)
    if not found:
        return None
    shown = [
        f"label '{rare}' ({counts[rare]} of {total:,} rows) is nearly '{near}' ({counts[near]:,})"
        for rare, near in found[:3]
    ]
    more = f", and {len(found) - 3} more" if len(found) > 3 else ""
    return f"{', '.join(shown)}{more}: if it is a slip, mend it"


def _letters(label: str) -> str:
    return "".join(letter for letter in label.lower() if not letter.isdigit()).strip()


def in_words(counts: Mapping[str, int]) -> str:
    """The counts in one line.

    >>> in_words({"good": 1200, "bad": 1})
    'good 1,200, bad 1'
    """
    shown = [f"{label} {count:,}" for label, count in list(counts.items())[:_SHOWN]]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f", and {more} more" if more else "")
