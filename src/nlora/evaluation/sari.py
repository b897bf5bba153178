"""SARI: how well a text was simplified (Xu et al. 2016, "Optimizing Statistical Machine
Translation for Text Simplification", Section 4).

An answer is compared with its source and its reference: which n-grams it added, kept and deleted,
and which it should have. SARI is the mean of the F1 of additions, the F1 of what was kept and the
precision of deletions, each the mean over n = 1 to 4. Words are lower-case, punctuation is apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from nlora.evaluation.answers import Prediction
from nlora.evaluation.words import words_and_marks


def sari(predictions: Sequence[Prediction]) -> float:
    """The mean over answers of SARI, in per cent; each has one reference, its label."""
    scores = [sari_of(p.source, p.text, p.label) for p in predictions]
    return 100.0 * sum(scores) / len(scores)


def sari_of(source: str, answer: str, reference: str) -> float:
    """SARI of one answer, between 0 and 1.

    >>> sari_of("the cat perched", "the cat sat", "the cat sat")
    1.0
    """
    words = [words_and_marks(text.lower()) for text in (source, answer, reference)]
    total = 0.0
    for n in (1, 2, 3, 4):
        before, given, right = (_grams(text, n) for text in words)
        added = _f1(given.keys() - before.keys(), right.keys() - before.keys())
        kept = _f1_of_counts(before & given, before & right)
        deleted = _share((before - given) & (before - right), before - given)
        total += added + kept + deleted
    return total / 12


def _grams(words: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[i:] for i in range(n)), strict=False))


def _f1(given: set, right: set) -> float:
    """F1 of two sets; 1 where there was nothing to do and nothing was done."""
    if not given and not right:
        return 1.0
    return 2 * len(given & right) / (len(given) + len(right))


def _f1_of_counts(given: Counter, right: Counter) -> float:
    return _harmonic(_share(given & right, given), _share(right & given, right))


def _share(part: Counter, whole: Counter) -> float:
    """The mean over the n-grams of the whole of the share that is in the part; 1 of nothing."""
    if not whole:
        return 1.0
    return sum(part[gram] / count for gram, count in whole.items()) / len(whole)


def _harmonic(one: float, other: float) -> float:
    return 2 * one * other / (one + other) if one + other else 0.0
