"""Does one quantity go with another? Rank correlations over observations that come in groups."""

from collections.abc import Callable, Sequence

import numpy as np

from nlora.evaluation.statistics import COVERAGE

SAMPLES = 300
Measure = Callable[[np.ndarray], float]


def ranks(values: np.ndarray) -> np.ndarray:
    """1 … n by size, equal values their mean rank, (n,).

    >>> ranks(np.array([0.5, 2.0, 0.5, 9.0])).tolist()
    [1.5, 3.0, 1.5, 4.0]
    """
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return (last - (counts - 1) / 2)[places]


def correlation(x: np.ndarray, y: np.ndarray, given: np.ndarray | None = None) -> float:
    """Spearman's ρ of x and y, (n,) each; `given`, (n,), the partial one: of what ranks of `given`
    do not explain linearly of the others' ranks. NaN where one of them does not vary.
    """
    a, b = ranks(x), ranks(y)
    if given is not None:
        c = ranks(given)
        a, b = _less(a, c), _less(b, c)
    return _pearson(a, b)


def correlation_within(x: np.ndarray, y: np.ndarray, kinds: np.ndarray) -> float:
    """Spearman's ρ of x and y where each observation is ranked among those of its kind, (n,) of
    integers, only: what sets kinds apart counts for nothing.
    """
    a, b = np.zeros(len(x)), np.zeros(len(x))
    for kind in np.unique(kinds):
        same = kinds == kind
        for ranked, values in ((a, x), (b, y)):
            own = ranks(values[same])
            ranked[same] = (own - own.mean()) / len(own)
    return _pearson(a, b)


def interval(
    measure: Measure, groups: np.ndarray, samples: int = SAMPLES, seed: int = 0
) -> tuple[float, float] | None:
    """The bootstrap's interval of a measure of observations, by their indices, (m,) integers.

    Whole groups are drawn, (n,) integers, since observations of one run share what is by chance.
    None where there are fewer than two groups, or it cannot be measured in most samples.
    """
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    if len(members) < 2:
        return None
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(samples):
        chosen = rng.integers(len(members), size=len(members))
        drawn.append(measure(np.concatenate([members[i] for i in chosen])))
    found = np.array(drawn)[np.isfinite(drawn)]
    if len(found) < samples / 2:
        return None
    tail = 50 * (1 - COVERAGE)
    low, high = np.percentile(found, [tail, 100 - tail])
    return float(low), float(high)


def held_out(x: np.ndarray, y: np.ndarray, kinds: np.ndarray) -> float | None:
    """R² of y predicted from x for each kind, (n,) of integers, by a line through the others.

    The line is through ranks of x among the others. Against their mean: 1 is exact, 0 no better
    than the mean, and below 0 worse. None with fewer than two kinds, or where y does not vary.
    """
    errors, spread = 0.0, 0.0
    for kind in np.unique(kinds):
        out = kinds == kind
        if out.all():
            return None
        known, sought = x[~out], x[out]
        order = np.sort(known)
        place = (
            np.searchsorted(order, sought, "left") + np.searchsorted(order, sought, "right") + 1
        ) / 2
        slope, mean, centre = _line(ranks(known), y[~out])
        errors += float(((y[out] - mean - slope * (place - centre)) ** 2).sum())
        spread += float(((y[out] - mean) ** 2).sum())
    return 1 - errors / spread if spread else None


def numbered(names: Sequence[object]) -> np.ndarray:
    """Equal names get equal numbers, (n,).

    >>> numbered(["b", "a", "b"]).tolist()
    [0, 1, 0]
    """
    seen: dict[object, int] = {}
    return np.array([seen.setdefault(name, len(seen)) for name in names], dtype=np.int64)


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """The slope of y over x, the mean of y and that of x."""
    centred = x - x.mean()
    scale = float(centred @ centred)
    slope = float(centred @ y) / scale if scale else 0.0
    return slope, float(y.mean()), float(x.mean())


def _less(values: np.ndarray, given: np.ndarray) -> np.ndarray:
    """What a line over `given` leaves of the values."""
    slope, mean, centre = _line(given, values)
    return values - mean - slope * (given - centre)


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    # What rounding leaves of a constant is not a variation.
    return float(a @ b) / scale if scale > 1e-9 * len(a) else float("nan")
