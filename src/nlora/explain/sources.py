"""Where offsets per label come from, from the most to the least that is asked for.

A source's name says which texts it asks and what it makes alike there:

dev       the task's labelled dev examples: cross-entropy (an offset per label and one scale)
test      its unlabelled test texts, every label as often: transductive, an upper bound
train     its unlabelled training texts, label shares as in training
KIND: shares            texts of that kind; the labels' shares as they were right after the task
KIND: answers           likewise each answer as it was then (an offset per label and one scale)
KIND: shares, matched   as they were once matched, then, on the task's own training texts
KIND: answers, matched
contextual              content-free prompts of today alone: contextual calibration

KIND is one of `NEUTRAL`: texts that need not be the task's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from nlora.evaluation.matching import (
    Correction,
    divide_by_mean,
    match_answers,
    match_shares,
    probabilities,
    shares_of,
)

OWN = ("train", "dev", "test")
"""Kinds of texts of the task itself."""
NEUTRAL = ("newest", "neutral", "self", "by-label", "content-free")
"""Kinds of texts that are not the task's: the newest one's, those of a file, what the base model
writes by itself or when it is told the task's question and a label, and prompts without content."""
KINDS = (*OWN, *NEUTRAL)
VARIANTS = ("shares", "answers")
TRANSDUCTIVE = "test"

Scores = Mapping[str, ndarray]
"""ln p of each label, (texts, labels), by kind of text."""


@dataclass(frozen=True)
class Known:
    """What is known of a task's labels beside scores: indices of labels by example."""

    train: Sequence[int] = ()
    """Of all training examples."""
    dev: Sequence[int] = ()
    """Of the dev examples that were scored."""


def corrections(then: Scores, now: Scores, known: Known) -> dict[str, Correction]:
    """The correction that each source finds for a task's scores `now`, by the source's name.

    `then` are those of the model right after the task. A source without its texts is left out.
    """
    found: dict[str, Correction] = {}
    labels = next(iter(now.values())).shape[1]
    if "dev" in now:
        found["dev"] = match_answers(now["dev"], np.eye(labels)[list(known.dev)])
    if "test" in now:
        found["test"] = match_shares(now["test"], np.full(labels, 1 / labels))
    shares = shares_of(known.train, labels)
    if "train" in now and known.train:
        found["train"] = match_shares(now["train"], shares)
    own = match_shares(then["train"], shares) if "train" in then and known.train else None
    for kind in NEUTRAL:
        if kind not in now or kind not in then:
            continue
        wanted = {"": probabilities(then[kind])}
        if own is not None:
            wanted[", matched"] = probabilities(own(then[kind]))
        for moment, targets in wanted.items():
            found[f"{kind}: shares{moment}"] = match_shares(now[kind], targets.mean(0))
            found[f"{kind}: answers{moment}"] = match_answers(now[kind], targets)
    if "content-free" in now:
        found["contextual"] = divide_by_mean(now["content-free"])
    return found


def no_old_text(source: str) -> bool:
    """Whether a source needs no text of the task once the task is over."""
    return source not in OWN
