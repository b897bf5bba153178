"""Does one quantity go with another? Rank correlations over observations that come in groups."""

from collections.abc import Sequence

import numpy as np

from nlora.evaluation.statistics import draws, middle


def ranks(values: np.ndarray) -> np.ndarray:
    """1 … n by size, equal values their mean rank, (n,).

    >>> ranks(np.array([0.5, 2.0, 0.5, 9.0])).tolist()
    [1.5, 3.0, 1.5, 4.0]
    """
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return (last - (counts - 1) / 2)[places]


def ranks_within(values: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Ranks among the observations of one kind, (n,) of integers: what sets kinds apart is gone.

    They run from −½ to ½, so that kinds of any number of observations count alike.
    """
    found = np.zeros(len(values))
    for kind in np.unique(kinds):
        same = kinds == kind
        own = ranks(values[same])
        found[same] = (own - own.mean()) / len(own)
    return found


def correlation(a: np.ndarray, b: np.ndarray, given: np.ndarray | None = None) -> float:
    """The correlation of two ranks, (n,) each: Spearman's ρ; NaN where one of them does not vary.

    With `given`, ranks (n,) as well, the partial one: of what a line over these leaves of both.
    """
    if given is not None:
        a, b = _less(a, given), _less(b, given)
    [found] = _correlations(a, b, np.ones((1, len(a))))
    return float(found)


def interval(a: np.ndarray, b: np.ndarray, *groupings: np.ndarray) -> tuple[float, float] | None:
    """The bootstrap's interval of `correlation(a, b)`, whose ranks are kept as they are.

    Whole groups are drawn, (n,) integers from 0, since observations of one group share what is by
    chance; of several crossed groupings each by itself, an observation as often as the product says
    (the pigeonhole bootstrap, Owen 2007). A grouping of one group is none. None where no grouping
    is one, or where most samples do not vary.
    """
    crossed = [(k, g, int(g.max()) + 1) for k, g in enumerate(groupings) if g.max() > 0]
    if not crossed:
        return None
    drawn = np.ones(1)
    for k, groups, count in crossed:
        name = f"{count} groups" if k == 0 else f"{count} groups of kind {k}"
        drawn = drawn * draws(name, count)[:, groups].astype(np.float64)  # (samples, n)
    found = _correlations(a, b, drawn)
    known = found[np.isfinite(found)]
    if len(known) < len(found) / 2:
        return None
    return middle(known)


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


def _correlations(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson's correlation of a and b, (n,), under each row of weights (m, n)."""
    a, b = a - a.mean(), b - b.mean()
    total = np.maximum(weights.sum(axis=1), 1.0)  # crossed draws may meet nowhere
    x, y, xx, yy, xy = (weights @ v / total for v in (a, b, a * a, b * b, a * b))
    spread = np.sqrt(np.maximum(xx - x * x, 0) * np.maximum(yy - y * y, 0))
    # What rounding leaves of a constant is not a variation.
    varies = spread > 1e-9 * max(np.abs(a).max(), 1e-9) * max(np.abs(b).max(), 1e-9)
    return np.where(varies, (xy - x * y) / np.where(varies, spread, 1.0), np.nan)
