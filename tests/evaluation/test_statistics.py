"""Intervals against computations of another kind."""

from itertools import product

import numpy as np
import pytest

from nlora.evaluation.statistics import draws, estimates, mean_and_spread
from nlora.report.ledger import pack, unpack

RNG = np.random.default_rng(7)
BEGIN = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def same_numbers():
    """Each test draws the same, whichever ran before it."""
    RNG.bit_generator.state = BEGIN


def differences(orders, seeds, count, tasks=("a", "b")):
    """Answers of two methods, subtracted; some orders and seeds are luckier than others."""
    cells = {}
    for (o, order), seed in product(enumerate(orders), seeds):
        shift = 0.1 * o + 0.05 * seed
        cells[order, seed] = {
            t: (RNG.random(count) < 0.5 + shift).astype(int) - (RNG.random(count) < 0.4).astype(int)
            for t in tasks
        }
    return cells


def test_one_run_has_the_interval_that_scipy_gives():
    from scipy import stats

    difference = RNG.integers(-1, 2, size=60)
    found = estimates({"x": {("o", 0): {"a": difference}}}, samples=20_000)["x"]
    theirs = stats.bootstrap(
        (difference,), np.mean, n_resamples=20_000, method="percentile", rng=RNG
    ).confidence_interval
    assert found.mean == pytest.approx(100 * difference.mean())
    assert found.low == pytest.approx(100 * theirs.low, abs=1.7)  # a grid of 100/60 points
    assert found.high == pytest.approx(100 * theirs.high, abs=1.7)


def crossed(cells, samples):
    """In plain loops: draw orders, seeds and examples once each, and look every cell up."""
    orders, seeds = sorted({o for o, _ in cells}), sorted({s for _, s in cells})
    tasks = {t: len(d) for t, d in next(iter(cells.values())).items()}
    means = []
    for _ in range(samples):
        examples = {t: RNG.integers(n, size=n) for t, n in tasks.items()}
        some_orders = RNG.choice(orders, len(orders))
        some_seeds = RNG.choice(seeds, len(seeds))
        drawn = [
            np.mean([cells[o, s][t][examples[t]].mean() for t in tasks])
            for o, s in product(some_orders, some_seeds)
        ]
        means.append(np.mean(drawn))
    return means


def test_orders_seeds_and_examples_are_resampled_each_on_its_own():
    cells = differences(["x", "y", "z"], [0, 1, 2], 40)
    found = estimates({"d": cells}, samples=8_000)["d"]
    low, high = np.percentile(crossed(cells, 1_500), [2.5, 97.5])
    assert found.low == pytest.approx(100 * low, abs=1.5)
    assert found.high == pytest.approx(100 * high, abs=1.5)
    flat = [np.mean([d.mean() for d in tasks.values()]) for tasks in cells.values()]
    assert found.mean == pytest.approx(100 * np.mean(flat))


def test_examples_that_are_shared_make_more_seeds_worth_less():
    # the same examples in every cell: averaging over seeds removes nothing of their chance
    difference = {"a": RNG.integers(-1, 2, size=50)}
    one = estimates({"d": {("o", 0): difference}})["d"]
    many = estimates({"d": {("o", seed): difference for seed in range(5)}})["d"]
    assert many.high - many.low == pytest.approx(one.high - one.low, rel=0.1)


def test_what_is_compared_together_is_drawn_together():
    cells = differences(["x", "y"], [0, 1], 30)
    opposite = {cell: {t: -d for t, d in tasks.items()} for cell, tasks in cells.items()}
    found = estimates({"d": cells, "-d": opposite})
    assert found["d"].low == pytest.approx(-found["-d"].high)
    assert found["d"].high == pytest.approx(-found["-d"].low)


def test_runs_that_are_missing_leave_a_finite_interval():
    cells = differences(["x", "y", "z"], [0, 1], 30)
    del cells["x", 0], cells["y", 1]
    found = estimates({"d": cells})["d"]
    assert found.low < found.mean < found.high


def test_a_difference_without_chance_has_no_width():
    sure = {("o", 0): {"a": np.ones(10, dtype=int)}}
    assert estimates({"d": sure})["d"] == (100.0, 100.0, 100.0)


def test_draws_are_multinomial_and_the_same_every_time():
    drawn = draws("a task", 5, samples=20_000)
    assert (drawn.sum(1) == 5).all()
    assert drawn.mean(0) == pytest.approx(1, abs=0.03)
    assert drawn.var(0) == pytest.approx(5 * 0.2 * 0.8, abs=0.05)
    assert (draws("a task", 5, samples=20_000) == drawn).all()
    assert not (draws("another", 5, samples=20_000) == drawn).all()


def test_the_spread_is_that_of_a_sample():
    values = [1.0, 4.0, 4.5]
    mean, spread = mean_and_spread(values)
    assert (mean, spread) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert mean_and_spread([3.0]) == (3.0, None)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 120])
def test_answers_are_read_back_as_they_were(count):
    right = RNG.random(count) < 0.5
    assert unpack(pack(right.tolist())).tolist() == right.astype(int).tolist()
