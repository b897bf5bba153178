import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nlora.evaluation.ranks import correlation, held_out, interval, ranks, ranks_within
from nlora.evaluation.statistics import draws, middle

VALUES = st.floats(-100, 100, width=16)
VECTORS = arrays(np.float64, st.integers(4, 12), elements=VALUES)


def counted(values):
    """Ranks by counting what is smaller and what is equal."""
    return [sum(v < x for v in values) + (sum(v == x for v in values) + 1) / 2 for x in values]


@given(VECTORS)
def test_equal_values_share_their_mean_rank(values):
    np.testing.assert_array_equal(ranks(values), counted(values))


@given(arrays(np.float64, (2, 9), elements=VALUES))
def test_a_correlation_is_spearmans(values):
    x, y = values
    found = correlation(ranks(x), ranks(y))
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(np.corrcoef(counted(x), counted(y))[0, 1], abs=1e-12)


def test_a_partial_correlation_is_the_formula_of_three_correlations():
    x, y, z = np.random.default_rng(0).normal(size=(3, 50))
    x, y, z = ranks(x + z), ranks(y - z), ranks(z)
    xy, xz, yz = correlation(x, y), correlation(x, z), correlation(y, z)
    formula = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    assert correlation(x, y, z) == pytest.approx(formula)
    assert abs(correlation(x, y, z)) < 0.2 < abs(xy)  # z was all that joined them


def test_what_sets_kinds_apart_counts_for_nothing_within_them():
    kinds = np.repeat([0, 1, 2], 6)
    x = 10.0 * kinds + np.tile(np.arange(6), 3)
    y = 10.0 * kinds - np.tile(np.arange(6), 3)
    assert correlation(ranks(x), ranks(y)) > 0.7
    within = (ranks_within(v, kinds) for v in (x, y))
    assert correlation(*within) == pytest.approx(-1)


def test_the_interval_is_that_of_correlations_in_samples_of_whole_groups():
    x, y = (ranks(values) for values in np.random.default_rng(2).normal(size=(2, 12)))
    groups = np.repeat(np.arange(4), 3)
    found = []
    for times in draws("4 groups", 4).astype(int):
        drawn = np.concatenate([np.flatnonzero(groups == g) for g in np.repeat(range(4), times)])
        found.append(np.corrcoef(x[drawn], y[drawn])[0, 1])
    assert interval(x, y, groups) == pytest.approx(middle(np.array(found)))


def test_the_interval_is_over_whole_groups():
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(8), 40)
    x = np.repeat(rng.normal(size=8), 40)
    y = np.repeat(rng.normal(size=8), 40) + 0.01 * rng.normal(size=320)
    low, high = interval(ranks(x), ranks(y), groups)
    assert high - low > 0.8  # eight things are known, not 320
    assert low < correlation(ranks(x), ranks(y)) < high
    each = interval(ranks(x), ranks(y), np.arange(320))
    assert each[1] - each[0] < 0.3
    assert interval(ranks(x), ranks(y), np.zeros(320, int)) is None


def test_two_crossed_groupings_are_drawn_each_by_itself():
    x, y = (ranks(values) for values in np.random.default_rng(3).normal(size=(2, 12)))
    rows, columns = np.repeat(np.arange(4), 3), np.tile(np.arange(3), 4)
    found = []
    for times, others in zip(draws("4 groups", 4), draws("3 groups of kind 1", 3), strict=True):
        each = (times[rows] * others[columns]).astype(int)
        drawn = np.repeat(np.arange(12), each)
        if len(set(drawn)) > 1:
            found.append(np.corrcoef(x[drawn], y[drawn])[0, 1])
    assert interval(x, y, rows, columns) == pytest.approx(middle(np.array(found)))
    alone = interval(x, y, rows)
    assert interval(x, y, rows, np.zeros(12, int)) == alone  # one method is no grouping


def test_draws_of_two_groupings_that_meet_nowhere_are_left_out_in_silence(recwarn):
    x, y = (ranks(values) for values in np.random.default_rng(4).normal(size=(2, 6)))
    low, high = interval(x, y, np.repeat([0, 1], 3), np.repeat([1, 0], 3))
    assert -1 <= low <= high <= 1
    assert not recwarn.list


def test_what_holds_for_other_kinds_too_is_predicted_and_else_not():
    rng = np.random.default_rng(2)
    kinds = np.repeat(np.arange(4), 25)
    x = rng.normal(size=100)
    assert held_out(x, ranks(x), kinds) > 0.95
    turned = np.where(kinds == 0, -x, x)  # of one kind it is the other way about
    assert held_out(x, ranks(x), kinds) > held_out(x, ranks(turned), kinds)
    assert held_out(x, rng.normal(size=100), kinds) < 0.1
    assert held_out(x, ranks(x), np.zeros(100, int)) is None


def test_a_value_that_is_among_the_others_has_the_mean_of_its_two_places():
    x = np.array([1.0, 2, 2, 3, 4, 2, 2, 3, 5, 0])
    y = np.array([1.0, 3, 2, 5, 4, 2, 4, 4, 6, 1])
    kinds = np.repeat([0, 1], 5)
    errors, spread = 0.0, 0.0
    for known, sought in ((kinds == 0, kinds == 1), (kinds == 1, kinds == 0)):
        slope, start = np.polyfit(counted(x[known]), y[known], 1)
        for a, b in zip(x[sought], y[sought], strict=True):
            place = (sum(x[known] < a) + sum(x[known] <= a) + 1) / 2
            errors += (b - start - slope * place) ** 2
            spread += (b - y[known].mean()) ** 2
    assert held_out(x, y, kinds) == pytest.approx(1 - errors / spread)


def test_two_groups_have_an_interval_and_one_has_none():
    x, y = np.random.default_rng(2).normal(size=(2, 40))
    assert interval(ranks(x), ranks(y), np.repeat([0, 1], 20)) is not None
    assert interval(ranks(x), ranks(y), np.zeros(40, dtype=int)) is None
