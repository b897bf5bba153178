"""What answers to a task are measured by, by name; all in per cent.

exact      exact match after normalisation (default); `accuracy` is the same
macro-f1   the mean over labels of F1; an answer that is no label is a miss (scikit-learn)
f1         F1 of the tokens of answer and label, the mean over answers (as SQuAD, torchmetrics' own)
rouge-l    ROUGE-L's F1, the mean over answers (rouge-score, without stemming)
contains   the label stands in the answer, both normalised
verbatim   the same text but for spaces at its ends: "-3" is not "3", as it is to exact match
choice     the same first letter, after "Answer:" where that is written: a choice with its reasons
rouge-l-stem      ROUGE-L's F1 of stemmed words, as SAPT measures SuperNI
edit-similarity   1 - insertions and deletions per character, the mean over answers (rapidfuzz)
sari       of a simplification, beside the text that it simplifies (`nlora.evaluation.sari`)

`module:function` is a function of one's own: it is given the answers and the labels, two lists of
texts, and returns a number in per cent (`nlora.evaluation.own_metrics`).
"""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

from nlora.data.comparing import comparison
from nlora.errors import NloraError, unknown
from nlora.evaluation.answers import Metric, Prediction, exact_match
from nlora.evaluation.own_metrics import own_metric
from nlora.evaluation.sari import sari
from nlora.evaluation.words import Words, apart

EXTRA = "pip install 'nlora[metrics]'"


def macro_f1(predictions: Sequence[Prediction]) -> float:
    """The mean over labels, those that are right or were answered, of F1 (as scikit-learn).

    An answer that is no label of the task is a miss of the right one, and no label more.
    """
    from sklearn.metrics import f1_score  # type: ignore[import-untyped]

    given, right = _normalised(predictions)
    listed = predictions[0].labels or ()
    known = set(map(comparison(listed), listed))
    labels = sorted(set(right) | (set(given) & known))
    score = f1_score(right, given, labels=labels, average="macro", zero_division=0)  # type: ignore[arg-type]
    return 100.0 * float(score)


def token_f1(predictions: Sequence[Prediction]) -> float:
    """The mean over answers of the F1 of their tokens, without articles, as SQuAD counts them."""
    from torchmetrics.functional.text import squad  # type: ignore[import-not-found]

    given = [{"prediction_text": apart(p.text), "id": str(i)} for i, p in enumerate(predictions)]
    right = [
        {"answers": {"answer_start": [0], "text": [apart(p.label)]}, "id": str(i)}
        for i, p in enumerate(predictions)
    ]
    return float(squad(given, right)["f1"])


def rouge_l(predictions: Sequence[Prediction], stem: bool = False) -> float:
    """The mean over answers of ROUGE-L's F1, of words or their stems."""
    from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-not-found]

    scorer = RougeScorer(["rougeL"], tokenizer=Words(stem))
    scores = [scorer.score(p.label, p.text)["rougeL"].fmeasure for p in predictions]
    return 100.0 * sum(scores) / len(scores)


def contains(predictions: Sequence[Prediction]) -> float:
    """Per cent of answers in which the label stands as whole words."""
    pairs = zip(*(map(apart, texts) for texts in _normalised(predictions)), strict=True)
    return 100.0 * sum(f" {right} " in f" {given} " for given, right in pairs) / len(predictions)


def verbatim(predictions: Sequence[Prediction]) -> float:
    """Per cent of answers that are the label, spaces at the ends aside."""
    return 100.0 * sum(p.text.strip() == p.label.strip() for p in predictions) / len(predictions)


def choice(predictions: Sequence[Prediction]) -> float:
    """Per cent of answers that choose as the label does."""
    pairs = [(_chosen(p.text), _chosen(p.label)) for p in predictions]
    return 100.0 * sum(given == right for given, right in pairs) / len(pairs)


def _chosen(text: str) -> str:
    return text.strip().removeprefix("Answer:").strip()[:1]


def edit_similarity(predictions: Sequence[Prediction]) -> float:
    """The mean over answers of the similarity of two lines of code, as TRACE measures Py150.

    Marks of literals (`<STR_LIT:x>`) count as what they stand for.
    """
    from rapidfuzz.fuzz import ratio  # type: ignore[import-not-found]

    scores = [ratio(_literals(p.text), _literals(p.label)) for p in predictions]
    return float(sum(scores) / len(scores))


_LITERAL = re.compile(r"<(?:STR|NUM|CHAR)_LIT(?::(.*?))?>", re.DOTALL)


def _literals(code: str) -> str:
    code = code.strip().replace("<NUM_LIT>", "0")
    return _LITERAL.sub(lambda mark: mark[1] or "", code)


METRICS: dict[str, Metric] = {
    "exact": exact_match,
    "accuracy": exact_match,
    "macro-f1": macro_f1,
    "f1": token_f1,
    "rouge-l": rouge_l,
    "rouge-l-stem": partial(rouge_l, stem=True),
    "contains": contains,
    "verbatim": verbatim,
    "choice": choice,
    "edit-similarity": edit_similarity,
    "sari": sari,
}
NEEDS = {
    "macro-f1": "sklearn.metrics",
    "f1": "torchmetrics.functional.text",
    "rouge-l": "rouge_score.rouge_scorer",
    "rouge-l-stem": "rouge_score.rouge_scorer",
    "edit-similarity": "rapidfuzz.fuzz",
}
"""The module that a metric takes from an extra."""

MEANS = (
    "f1",
    "rouge-l",
    "rouge-l-stem",
    "contains",
    "verbatim",
    "choice",
    "edit-similarity",
    "sari",
)
"""Metrics that are the mean of a number of each answer."""

OF_LABELS = (None, "exact", "accuracy", "macro-f1")
"""Metrics for which an answer that can become no label any more is wrong, however it goes on."""


def metric(name: str | None) -> Metric:
    """The metric of that name, exact match by default.

    Raises NloraError for an unknown name, for a function that is not there, and where a library is
    missing.
    """
    if name is None:
        return exact_match
    if ":" in name:
        return own_metric(name)
    if name not in METRICS:
        raise unknown("metric", name, [*METRICS, "module:function"])
    if name in NEEDS:
        _importable(name)
    return METRICS[name]


def each(name: str | None, predictions: Sequence[Prediction]) -> list[float]:
    """What each answer contributes to a task's metric, from 0 to 1, so that answers can be paired.

    1 where it is right and else 0, also for metrics that are no mean over answers.
    """
    if name not in MEANS:
        return [float(p.correct) for p in predictions]
    measure = metric(name)
    return [measure([p]) / 100 for p in predictions]


def _importable(name: str) -> None:
    try:
        importlib.import_module(NEEDS[name])
    except ImportError:
        library = NEEDS[name].split(".")[0]
        raise NloraError(f"metric '{name}' needs {library}: {EXTRA}") from None


def by_label(predictions: Sequence[Prediction], labels: Sequence[str]) -> dict[str, Any]:
    """Of each label its precision and recall (per cent, None of nothing), support and confusion.

    `answered` has what examples of the label were answered with, by label; `none` counts answers
    that are no label.
    """
    form = comparison(labels)
    names = {form(label): label for label in labels}
    pairs = Counter((p.label, names.get(form(p.text))) for p in predictions)
    found = {}
    for label in labels:
        row = {other: pairs[label, other] for other in labels if pairs[label, other]}
        support = sum(row.values()) + pairs[label, None]
        times = sum(count for (_, given), count in pairs.items() if given == label)
        right = pairs[label, label]
        found[label] = {
            "precision": 100.0 * right / times if times else None,
            "recall": 100.0 * right / support if support else None,
            "support": support,
            "answered": row,
            "none": pairs[label, None],
        }
    return found


def _normalised(predictions: Sequence[Prediction]) -> tuple[list[str], list[str]]:
    pairs = [p.compared for p in predictions]
    return [given for given, _ in pairs], [right for _, right in pairs]
