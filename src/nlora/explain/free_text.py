"""Answers to tasks without labels: what of a lost one is still there, if not the exact text.

Shares are in per cent.

There is no list to be off, so the same question is asked of length, first word and form. An answer
counts as *found again* where it shares at least half of its words with the right one (F1 of words).
"""

from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from nlora.data.comparing import normalise
from nlora.evaluation.words import words

ENOUGH = 0.5
"""F1 of words from which on an answer says what is right, if not in the right words."""


def free_text(then: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What was lost of a task of free text, as shares of its lost answers.

    `then` and `now` are a run's kept answers (`text`, `label`, `correct`) to the same examples.
    `lost` are those that were right then and are not now, by exact match; of them `found` share
    enough words with the right one, `first` begin with its first word, `form` look like it. `f1`
    are the means of all answers then and now, `length` the mean number of words now per word then.
    """
    lost = [b for a, b in zip(then, now, strict=True) if a["correct"] and not b["correct"]]
    won = sum(bool(b["correct"]) and not a["correct"] for a, b in zip(then, now, strict=True))
    words_then, words_now = (sum(len(_words(row["text"])) for row in rows) for rows in (then, now))
    return {
        "examples": len(now),
        "then": _share(row["correct"] for row in then),
        "now": _share(row["correct"] for row in now),
        "lost": len(lost),
        "won": won,
        "found": _share(word_f1(row["text"], row["label"]) >= ENOUGH for row in lost),
        "first": _share(_first(row["text"]) == _first(row["label"]) for row in lost),
        "form": _share(form(row["text"]) == form(row["label"]) for row in lost),
        "length": words_now / words_then if words_then else None,
        "f1": [100 * fmean(word_f1(r["text"], r["label"]) for r in rows) for rows in (then, now)],
    }


def word_f1(answer: str, right: str) -> float:
    """The harmonic mean of precision and recall of an answer's words, after normalisation.

    >>> word_f1("the red house", "A red house"), word_f1("", "a"), word_f1("", "")
    (0.6666666666666666, 0.0, 1.0)
    """
    given, wanted = Counter(_words(answer)), Counter(_words(right))
    if not given or not wanted:
        return float(given == wanted)
    return 2 * (given & wanted).total() / (given.total() + wanted.total())


def form(text: str) -> tuple[str, str, str]:
    """What an answer looks like: how long about, what kind of characters it begins and ends with.

    >>> form("Paris"), form("12.5"), form("It is so.")
    (('a word', 'A', 'a'), ('a word', '0', '0'), ('some words', 'A', '.'))
    """
    text = text.strip()
    count = len(text.split())
    size = "nothing" if not count else "a word" if count == 1 else "some words"
    return (size if count <= 8 else "many words"), _kind(text[:1]), _kind(text[-1:])


def _kind(character: str) -> str:
    if character.isdigit():
        return "0"
    if character.isalpha():
        return "A" if character.isupper() else "a"
    return character


def _words(text: str) -> list[str]:
    return words(normalise(text))


def _first(text: str) -> str:
    return next(iter(_words(text)), "")


def _share(values: Any) -> float | None:
    found = [bool(value) for value in values]
    return 100 * fmean(found) if found else None
