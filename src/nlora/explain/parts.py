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

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from nlora.report.statistics import COVERAGE, SAMPLES, draws

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


def parts(then: Reading, now: Reading, source: str) -> dict[str, float | None]:
    """The loss by the protocol in its parts, matched by one source.

    Without a probe nothing is known to be inaccessible (None), and `gone` is what matching does not
    bring back.
    """
    free = loss(then.answers, now.answers)
    among = loss(then.among, now.among)
    matched = loss(then.matched[source], now.matched[source])
    found: dict[str, float | None] = {"off the list": free - among, "bias": among - matched}
    if then.probe is None or now.probe is None:
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
class Way:
    """Right answers to the same examples, matched: by a model that never learned the task, by the
    one right after it, and by the one now."""

    never: ndarray
    then: ndarray
    now: ndarray

    def means(self, times: ndarray) -> tuple[ndarray, ndarray]:
        """Of samples in which examples count `times` (samples, examples): what was learned, and
        what of it is left."""
        total = times.sum(1)
        learned = times @ (self.then.astype(float) - self.never) / total
        left = times @ (self.now.astype(float) - self.never) / total
        return learned, left


def length(way: Way, name: str, samples: int = SAMPLES) -> Estimate:
    """How long the way from never learned to right after learning is, with its interval."""
    learned, _ = way.means(draws(f"task {name}", len(way.then), samples))
    plain, _ = way.means(np.ones((1, len(way.then))))
    return Estimate(float(plain[0]), *_interval(learned))


def kept(ways: dict[str, Way], samples: int = SAMPLES) -> Estimate:
    """How much of the way is left: (now - never) / (then - never), over tasks by their names.

    The sums over tasks are divided, so a task counts as much as its way is long. Tasks and, within
    each, test examples are drawn anew, paired over the three models. None where there is no way, or
    none in more than a twentieth of the samples: then nothing was learned that could be kept.
    """
    if not ways:
        return Estimate(None)
    names = sorted(ways)
    drawn = [
        ways[name].means(draws(f"task {name}", len(ways[name].then), samples)) for name in names
    ]
    plain = [ways[name].means(np.ones((1, len(ways[name].then)))) for name in names]
    learned = sum(float(one[0]) for one, _ in plain)
    left = sum(float(one[0]) for _, one in plain)
    tasks = (
        draws(f"tasks {names}", len(names), samples) if len(names) > 1 else np.ones((samples, 1))
    )
    below = (tasks * np.stack([one for one, _ in drawn], axis=1)).sum(1)
    above = (tasks * np.stack([one for _, one in drawn], axis=1)).sum(1)
    if learned <= 0:
        return Estimate(None)
    there = below > 1e-12
    if 1 - there.mean() > SHORT:
        return Estimate(left / learned)
    return Estimate(left / learned, *_interval(above[there] / below[there]))


def _interval(values: ndarray) -> tuple[float, float]:
    tail = 50 * (1 - COVERAGE)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
