"""How alike the tasks of a run are, by their texts and by their labels."""

from collections import Counter
from collections.abc import Sequence
from math import log, sqrt

from nlora.data.task import TaskData
from nlora.evaluation.words import words as words_of


def alike(tasks: Sequence[TaskData]) -> list[dict[str, str | float]]:
    """Of every two tasks `a`, `b`: `texts` and `labels`, each from 0 to 1.

    `texts` is the cosine of their mean TF-IDF vectors over words of the test texts, with
    idf = log(N / n) for a word that n of all N texts have; `labels` the share of all labels of the
    two that both have (Jaccard), 0 where one has free text.
    """
    words = {data.name: [Counter(words_of(e.text.lower())) for e in data.test] for data in tasks}
    texts = [counts for each in words.values() for counts in each]
    having = Counter(word for counts in texts for word in counts)
    idf = {word: log(len(texts) / count) for word, count in having.items()}
    vectors = {name: _mean(each, idf) for name, each in words.items()}
    return [
        {
            "a": first.name,
            "b": second.name,
            "texts": _cosine(vectors[first.name], vectors[second.name]),
            "labels": _shared(first.task.labels or (), second.task.labels or ()),
        }
        for number, first in enumerate(tasks)
        for second in tasks[number + 1 :]
    ]


def _mean(texts: Sequence[Counter[str]], idf: dict[str, float]) -> dict[str, float]:
    """Each text counts the same, however long it is; the length of the sum does not matter."""
    total: Counter[str] = Counter()
    for counts in texts:
        size = sum(counts.values())
        total.update({word: count / size * idf[word] for word, count in counts.items()})
    return dict(total)


def _cosine(a: dict[str, float], b: dict[str, float]) -> float:
    scale = sqrt(sum(x * x for x in a.values()) * sum(x * x for x in b.values()))
    return sum(value * b.get(word, 0.0) for word, value in a.items()) / scale if scale else 0.0


def _shared(a: Sequence[str], b: Sequence[str]) -> float:
    both = set(a) & set(b)
    return len(both) / len({*a, *b}) if both else 0.0
