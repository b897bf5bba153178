"""Offsets per label that take the bias out of a model's answers, without training.

Scores are ln p of whole labels as answers to some texts, (texts, labels). A *correction* adds an
offset to the scores of each label, after it multiplied them by a scale. Three ways to find one:

- `match_shares`: the mean predicted share of each label becomes a given one. The offsets are the
  dual variables of an entropic transport of the texts to the labels, a convex problem.
- `match_answers`: the answers become as much like given ones as an offset per label and one scale
  can make them, by cross-entropy, which is convex, too. With right answers as targets it is BiC's
  correction (Wu et al., arXiv 1905.13001) with an offset for every label and one scale for all.
- `divide_by_mean`: each label's probability is divided by its mean over the texts, once. Over
  content-free prompts it is contextual calibration (Zhao et al., arXiv 2102.09690), over a batch
  of texts batch calibration (Zhou et al., arXiv 2309.17249).

All is computed in fp64. A constant added to all scores of a text changes nothing.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from nlora.errors import NloraError

SMALLEST_SHARE = 1e-30
"""Of a label in what is matched: none at all would be an offset of −∞."""
SMALLEST_SCALE, LARGEST_SCALE = 0.01, 100.0
TOLERANCE = 1e-9
"""Of the mean predicted shares."""
MOST_STEPS = 200
SOFT = 20.0
"""How far below the best a score may be for its label still to count while offsets are sought."""


class Correction(NamedTuple):
    """An offset per label, (labels,), with a mean of 0, and the scale of the scores."""

    offsets: ndarray
    scale: float = 1.0

    def __call__(self, scores: ndarray) -> ndarray:
        """The corrected scores, (texts, labels)."""
        return self.scale * np.asarray(scores, dtype=np.float64) + self.offsets


def probabilities(scores: ndarray) -> ndarray:
    """Of each label among the labels, (texts, labels)."""
    values = np.exp(_below_zero(scores))
    return values / values.sum(1, keepdims=True)


def shares_of(right: Sequence[int] | ndarray, labels: int) -> ndarray:
    """The share of each label in right answers, (labels,), each counted half a time more, so that
    a label that a sample happens to lack is not ruled out (Krichevsky and Trofimov)."""
    counts = np.bincount(np.asarray(right, dtype=int), minlength=labels) + 0.5
    return counts / counts.sum()


def match_shares(scores: ndarray, shares: ndarray) -> Correction:
    """The offsets under which the mean predicted share of each label over the texts is `shares`.

    Scores that are far apart are softened at first, and then less and less.
    """
    scores = _checked(scores)
    problem = _Problem(scores, np.broadcast_to(shares, scores.shape))
    offsets, temperature = np.zeros(scores.shape[1]), _softest(scores)
    while True:
        offsets, _ = _minimum(problem, offsets / temperature, 1 / temperature, scaled=False)
        if temperature == 1:
            return Correction(_centred(offsets))
        offsets, temperature = offsets * temperature, max(1.0, temperature / 2)


def match_answers(scores: ndarray, targets: ndarray) -> Correction:
    """The offsets and the scale that minimise KL(target ‖ answer), its mean over the texts.

    `targets` are probabilities, (texts, labels). The scale is kept within 0.01 and 100.
    """
    scores = _checked(scores)
    problem, start = _Problem(scores, _checked(targets)), np.zeros(scores.shape[1])
    # As they are, if that is as good: many scales give the same to answers that are all sure.
    scales = (1.0, max(1 / _softest(scores), SMALLEST_SCALE))
    begun = min(scales, key=lambda scale: problem.value(start, scale))
    offsets, scale = _minimum(problem, start, begun, scaled=True)
    return Correction(_centred(offsets), scale)


def divide_by_mean(scores: ndarray) -> Correction:
    """The offsets that divide each label's probability by its mean over the texts."""
    means = np.maximum(probabilities(scores).mean(0), SMALLEST_SHARE)
    return Correction(_centred(-np.log(means)))


class _Problem:
    """The mean cross-entropy of targets and answers, as a function of offsets and scale.

    Its gradient by the offsets is mean predicted minus mean wanted share, so that with the scale
    held fixed only the mean of the targets counts.
    """

    def __init__(self, scores: ndarray, targets: ndarray) -> None:
        self.scores = _below_zero(scores)
        wanted = np.array(targets, dtype=np.float64)
        wanted[:, wanted.mean(0) < SMALLEST_SHARE] = SMALLEST_SHARE
        wanted /= wanted.sum(1, keepdims=True)
        self.shares = wanted.mean(0)
        self.agreement = float((wanted * self.scores).sum(1).mean())

    def logarithms(self, offsets: ndarray, scale: float) -> ndarray:
        """ln of the answers' probabilities."""
        return _normalised(scale * self.scores + offsets)

    def value(self, offsets: ndarray, scale: float) -> float:
        """The mean cross-entropy."""
        corrected = scale * self.scores + offsets
        top = corrected.max(1)
        totals = top + np.log(np.exp(corrected - top[:, None]).sum(1))
        return float(totals.mean() - self.shares @ offsets - scale * self.agreement)

    def slopes(self, logarithms: ndarray) -> tuple[ndarray, ndarray]:
        """Gradient (labels + 1,) and Hessian by the offsets and, last, the scale."""
        answers, count = np.exp(logarithms), len(logarithms)
        means = answers.mean(0)
        expected = (answers * self.scores).sum(1, keepdims=True)
        apart = answers * (self.scores - expected)
        gradient = np.append(means - self.shares, expected.mean() - self.agreement)
        hessian = np.zeros((len(gradient), len(gradient)))
        hessian[:-1, :-1] = np.diag(means) - answers.T @ answers / count
        hessian[:-1, -1] = hessian[-1, :-1] = apart.mean(0)
        hessian[-1, -1] = (apart * self.scores).sum(1).mean()
        return gradient, hessian


def _checked(scores: ndarray) -> ndarray:
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or not scores.size:
        raise ValueError("scores are of at least one text and one label")
    if not np.isfinite(scores).all():
        raise NloraError("its scores of labels are not finite (NaN), so no offset matches them")
    return scores


def _softest(scores: ndarray) -> float:
    """The temperature at which no score of a text is far below its best: where to begin."""
    return max(1.0, float(np.ptp(scores, axis=1).max()) / SOFT)


def _minimum(
    problem: _Problem, offsets: ndarray, scale: float, scaled: bool
) -> tuple[ndarray, float]:
    """The best offsets, and scale if it is not held fixed, from these on.

    Each step is the better one of Newton's, shortened until it descends, and the fixed point's,
    which makes the shares right as if no text were torn between labels: that one leaps over plains
    where hardly any is, and Newton's ends the way quickly. A scale at its bound stays there while
    the slope points beyond it.
    """
    value = problem.value(offsets, scale)
    for _ in range(MOST_STEPS):
        logarithms = problem.logarithms(offsets, scale)
        gradient, hessian = problem.slopes(logarithms)
        beyond = scale <= SMALLEST_SCALE if gradient[-1] > 0 else scale >= LARGEST_SCALE
        free = len(gradient) if scaled and not beyond else len(gradient) - 1
        if np.abs(gradient[:free]).max() < TOLERANCE:
            break
        step = np.zeros(len(gradient))
        step[:free] = -np.linalg.lstsq(hessian[:free, :free], gradient[:free], rcond=1e-13)[0]
        leap = np.log(problem.shares) - _log_means(logarithms)
        candidates = [(problem.value(offsets + leap, scale), offsets + leap, scale)]
        for shorter in 0.5 ** np.arange(30):
            moved, stretched = offsets + shorter * step[:-1], scale + float(shorter * step[-1])
            if scaled:
                stretched = min(max(stretched, SMALLEST_SCALE), LARGEST_SCALE)
            if (found := problem.value(moved, stretched)) <= value:
                candidates.append((found, moved, stretched))
                break
        best, moved, stretched = min(candidates, key=lambda candidate: candidate[0])
        if best > value + 1e-14 * abs(value):
            break
        value, offsets, scale = best, moved, stretched
    return offsets, scale


def _below_zero(scores: ndarray) -> ndarray:
    scores = np.asarray(scores, dtype=np.float64)
    return scores - scores.max(1, keepdims=True)


def _normalised(scores: ndarray) -> ndarray:
    below = _below_zero(scores)
    return below - np.log(np.exp(below).sum(1, keepdims=True))


def _log_means(logarithms: ndarray) -> ndarray:
    """ln of the mean over texts of each label's probability, also of those too small for fp64."""
    top = logarithms.max(0)
    return top + np.log(np.exp(logarithms - top).mean(0))


def _centred(offsets: ndarray) -> ndarray:
    return offsets - offsets.mean()
