"""What was lost of a task, in parts that add up, and how much of what was learned is left.

Each answer to a test example can be *read* in four ways, each of which asks less of the model:

free      what greedy decoding writes, compared by the protocol
among     the most likely of the task's labels
matched   the same, after an offset per label was matched (`evaluation.matching`)
probe     what a linear probe on the hidden state at the answer's position says

The loss under a reading is its accuracy right after the task minus its accuracy now. The parts are
differences of such losses, so they add up to the loss by the protocol exactly, and what a reading
adds to the model then and now alike is nobody's memory:

off the list   loss(free) - loss(among)
bias           loss(among) - loss(matched)
inaccessible   loss(matched) - loss(probe)
gone           loss(probe)

A part below zero says that there the model gained: the reading on the right lost more than the one
on the left. All accuracies here are shares between 0 and 1 of test examples.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np
from numpy import ndarray

from nlora.evaluation.statistics import SAMPLES, draws, middle

K = TypeVar("K")

PARTS = ("off the list", "bias", "inaccessible", "gone")
SHORT = 0.05
"""If the way is none in more than this share of samples, how much of it is left is unknown."""


@dataclass(frozen=True)
class Reading:
    """Which test examples were answered right, (examples,) of bool, under each reading."""

    free: ndarray | None
    """None where the protocol's answers were not kept."""
    among: ndarray
    matched: dict[str, ndarray] = field(default_factory=dict)
    """By source of the offsets."""
    probe: ndarray | None = None
    listed: ndarray | None = None
    """Whether the free answer is one of the task's labels."""

    @property
    def answers(self) -> ndarray:
        """Those of the protocol; among labels where they were not kept."""
        return self.among if self.free is None else self.free


def parts(then: Reading, now: Reading, source: str, probed: bool = True) -> dict[str, float | None]:
    """The loss by the protocol in its parts, matched by one source.

    Without a probe, or where it is not to be looked at (`probed`), nothing is known to be
    inaccessible (None), and `gone` is what matching does not bring back.
    """
    free = loss(then.answers, now.answers)
    among = loss(then.among, now.among)
    matched = loss(then.matched[source], now.matched[source])
    found: dict[str, float | None] = {"off the list": free - among, "bias": among - matched}
    if not probed or then.probe is None or now.probe is None:
        return found | {"inaccessible": None, "gone": matched}
    probe = loss(then.probe, now.probe)
    return found | {"inaccessible": matched - probe, "gone": probe}


def loss(then: ndarray, now: ndarray) -> float:
    """Accuracy then minus accuracy now."""
    return float(np.mean(then) - np.mean(now))


def by_example(then: Reading, now: Reading, source: str) -> dict[str, int]:
    """The lost answers one by one: right then by the protocol and wrong now, each counted once.

    By the first reading under which it is right now: among the labels (`off the list`), matched
    (`bias`), by the probe (`inaccessible`), or none (`gone`). `won` are the answers that were wrong
    then and are right now, so `lost` minus `won` is the protocol's loss; `unlisted` are the lost
    ones whose text is none of the labels, whatever brings them back.
    """
    gone = then.answers & ~now.answers
    found = {
        "lost": int(gone.sum()),
        "won": int((now.answers & ~then.answers).sum()),
    }
    if now.listed is not None:
        found["unlisted"] = int((gone & ~now.listed).sum())
    readings = [now.among, now.matched[source], now.probe]
    for name, reading in zip(PARTS, readings, strict=False):
        back = gone & reading if reading is not None else np.zeros_like(gone)
        found[name] = int(back.sum())
        gone = gone & ~back
    return found | {"gone": int(gone.sum())}


class Estimate(NamedTuple):
    """A number with its bootstrap interval; None where it cannot be told."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def to_json(self) -> dict[str, float | None]:
        """In per cent."""
        return {name: None if v is None else 100 * v for name, v in self._asdict().items()}


@dataclass(frozen=True)
class Accuracy:
    """A share of right answers, and what it is in each bootstrap sample of the test examples."""

    value: float
    samples: ndarray


def accuracies(name: str, right: Mapping[K, ndarray], samples: int = SAMPLES) -> dict[K, Accuracy]:
    """The accuracy of each of a task's right answers (examples,), over the same drawn examples."""
    if not right:
        return {}
    together = np.stack([np.asarray(one, dtype=np.float32) for one in right.values()], axis=1)
    drawn = draws(f"task {name}", len(together), samples) @ together / len(together)
    plain = together.mean(0, dtype=np.float64)
    return {
        key: Accuracy(float(plain[column]), drawn[:, column].astype(np.float64))
        for column, key in enumerate(right)
    }


class Way(NamedTuple):
    """The matched accuracy on a task of a model that never learned it, of the one right after it,
    and of the one now."""

    never: Accuracy
    then: Accuracy
    now: Accuracy


def length(way: Way) -> Estimate:
    """How long the way from never learned to right after learning is, with its interval."""
    return difference(way.never, way.then)


def difference(before: Accuracy, after: Accuracy) -> Estimate:
    """By how much the second is above the first, with its interval, paired over examples."""
    return Estimate(after.value - before.value, *middle(after.samples - before.samples))


def kept(ways: Mapping[str, Way]) -> Estimate:
    """How much of the way is left: (now - never) / (then - never), over tasks by their names.

    The sums over tasks are divided, so a task counts as much as its way is long. Tasks and, within
    each, test examples are drawn anew, paired over the three models. None where there is no way, or
    none in more than a twentieth of the samples: then nothing was learned that could be kept.
    """
    names = sorted(ways)
    some = [ways[name] for name in names]
    learned = sum(way.then.value - way.never.value for way in some)
    if learned <= 0:
        return Estimate(None)
    left = sum(way.now.value - way.never.value for way in some)
    samples = len(some[0].never.samples)
    times = (
        draws(f"tasks {names}", len(names), samples) if len(names) > 1 else np.ones((samples, 1))
    )
    below = (times * np.stack([w.then.samples - w.never.samples for w in some], axis=1)).sum(1)
    above = (times * np.stack([w.now.samples - w.never.samples for w in some], axis=1)).sum(1)
    there = below > 1e-9
    if 1 - there.mean() > SHORT:
        return Estimate(left / learned)
    return Estimate(left / learned, *middle(above[there] / below[there]))
