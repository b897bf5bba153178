"""Means with their spread, and paired differences with bootstrap intervals.

A comparison has three sources of chance: the order of the tasks, the seed, and the test examples.
They are crossed: the same examples are answered in every order and with every seed. So each is
resampled on its own and all cells follow (the pigeonhole bootstrap: Owen, "The pigeonhole
bootstrap", Annals of Applied Statistics 2007). The interval is the one of percentiles.

With one order, or one seed, nothing is known of how much another would change; the interval then
says only what is left. Few orders or seeds (below about five) give intervals that are too narrow.
"""

from collections.abc import Mapping
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np

from nlora.data.task import digest

SAMPLES = 2000
COVERAGE = 0.95

Differences = Mapping[tuple[str, int], Mapping[str, np.ndarray]]
"""By order and seed, and by task: per test example, one method's answer minus the other's."""


class Estimate(NamedTuple):
    """A mean difference and its interval, in per cent."""

    mean: float
    low: float
    high: float


def mean_and_spread(values: list[float]) -> tuple[float, float | None]:
    """The mean and the sample standard deviation, which one value does not have.

    >>> mean_and_spread([1.0, 2.0, 3.0]), mean_and_spread([5.0])
    ((2.0, 1.0), (5.0, None))
    """
    return fmean(values), stdev(values) if len(values) > 1 else None


def draws(name: str, count: int, samples: int = SAMPLES, seed: int = 0) -> np.ndarray:
    """How often each of `count` things is drawn in each sample, (samples, count) in float32.

    Rows add up to `count`. The same for the same name, so that whatever depends on it is paired.
    """
    rng = np.random.default_rng([seed, int(digest(name), 16), count])
    drawn = rng.integers(count, size=(samples, count))
    drawn += np.arange(samples)[:, None] * count
    counts = np.bincount(drawn.ravel(), minlength=samples * count)
    return counts.reshape(samples, count).astype(np.float32)


def middle(drawn: np.ndarray) -> tuple[float, float]:
    """Between which the middle 95 % of samples lie, (n,)."""
    tail = 50 * (1 - COVERAGE)
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return float(low), float(high)


def estimates(
    compared: Mapping[str, Differences], samples: int = SAMPLES, seed: int = 0
) -> dict[str, Estimate]:
    """The mean difference over orders, seeds and tasks of everything compared, by name.

    Each task counts the same. All are resampled together: an example that is drawn twice is drawn
    twice in every order, for every seed and everything compared.
    """
    means = _task_means(compared, samples, seed)
    found = {}
    for name, cells in compared.items():
        orders = sorted({order for order, _ in cells})
        seeds = sorted({number for _, number in cells})
        by_order = draws(f"orders {orders}", len(orders), samples, seed)
        by_seed = draws(f"seeds {seeds}", len(seeds), samples, seed)
        total, weight = np.zeros(samples), np.zeros(samples)
        for order, number in cells:
            times = by_order[:, orders.index(order)] * by_seed[:, seeds.index(number)]
            total += times * np.mean(means[name, order, number], axis=0)
            weight += times
        drawn = total[weight > 0] / weight[weight > 0]
        low, high = middle(drawn)
        plain = fmean(fmean(float(d.mean()) for d in tasks.values()) for tasks in cells.values())
        found[name] = Estimate(100 * plain, 100 * low, 100 * high)
    return found


def _task_means(
    compared: Mapping[str, Differences], samples: int, seed: int
) -> dict[tuple[str, str, int], list[np.ndarray]]:
    """The mean of each task in each sample, (samples,), by what is compared, order and seed."""
    columns: dict[tuple[str, int], list[tuple[tuple[str, str, int], np.ndarray]]] = {}
    for name, cells in compared.items():
        for (order, number), tasks in cells.items():
            for task, difference in tasks.items():
                key = (task, len(difference))
                columns.setdefault(key, []).append(((name, order, number), difference))
    means: dict[tuple[str, str, int], list[np.ndarray]] = {}
    for (task, count), parts in columns.items():
        together = np.stack([difference for _, difference in parts], axis=1).astype(np.float32)
        drawn = draws(f"task {task}", count, samples, seed) @ together / count
        for (cell, _), column in zip(parts, drawn.T, strict=True):
            means.setdefault(cell, []).append(column)
    return means
