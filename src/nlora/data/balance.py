"""How often each label stands in a task's examples."""

from collections import Counter
from collections.abc import Mapping, Sequence

from nlora.data.task import Example

_FEW = 20
"""Without a list of labels, answers are counted where there are no more different ones."""
_LONG = 60
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


def majority(counts: Mapping[str, int]) -> float | None:
    """The share of the most frequent label, which is what a constant answer scores.

    >>> majority({"good": 3, "bad": 1})
    0.75
    """
    total = sum(counts.values())
    return max(counts.values()) / total if total else None


def in_words(counts: Mapping[str, int]) -> str:
    """The counts in one line.

    >>> in_words({"good": 1200, "bad": 1})
    'good 1,200, bad 1'
    """
    shown = [f"{label} {count:,}" for label, count in list(counts.items())[:_SHOWN]]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f", and {more} more" if more else "")
