import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlora.errors import NloraError
from nlora.lowrank import supports
from nlora.lowrank.factors import Factors
from nlora.lowrank.supports import Threshold, average_over_pairs, collision_map, collisions

from .many import dense, gaussian, updates

EXACT = Threshold(0.0, relative=False)
RMS = Threshold(0.1, relative=True)


def signs(update, threshold):
    """−1, 0 or 1 at every entry, from the written out matrix."""
    delta = dense(update)
    rms = float(delta.square().mean().sqrt())
    limit = threshold.value * (rms if threshold.relative else 1.0)
    return (delta > limit).long() - (delta < -limit).long()


def compare(pairs, threshold, found):
    S = torch.stack([signs(p, threshold) for p in pairs])
    used = S.abs()
    assert found.size == S[0].numel()
    assert found.both.dtype == found.opposing.dtype == found.users.dtype == torch.int64
    assert found.used_by_at_least.shape == (len(pairs),)
    for i in range(len(pairs)):
        for j in range(len(pairs)):
            both = int((used[i] * used[j]).sum())
            assert int(found.both[i, j]) == both
            assert int(found.opposing[i, j]) == int((S[i] * S[j] == -1).sum())
            assert int(found.agreeing[i, j]) == int((S[i] * S[j] == 1).sum())
            assert float(found.rate[i, j]) == both / found.size
            s = used[i].double().mean(), used[j].double().mean()
            assert float(found.expected[i, j]) == pytest.approx(float(s[0] * s[1]))
            if float(s[0] * s[1]) > 0:
                assert float(found.lift[i, j]) == pytest.approx(
                    both / found.size / float(s[0] * s[1])
                )
            else:
                assert bool(found.lift[i, j].isnan())
        assert float(found.density[i]) == pytest.approx(float(used[i].double().mean()))
    for k in range(1, len(pairs) + 1):
        expected = (used.sum(dim=0) >= k).double().mean()
        assert float(found.used_by_at_least[k - 1]) == pytest.approx(float(expected))


@settings(max_examples=40)
@given(updates(whole=True), st.sampled_from([0.0, 0.6, 1.5]))
def test_counts_are_those_of_the_written_out_matrices(pairs, value):
    """Whole numbers: many entries are exactly 0, and none lies on a threshold."""
    threshold = Threshold(value, relative=False)
    compare(pairs, threshold, collisions(pairs, [threshold])[0])


@settings(max_examples=40)
@given(updates(), st.lists(st.sampled_from([0.1, 0.37, 0.9]), min_size=1, max_size=3))
def test_several_relative_thresholds_are_a_curve(pairs, values):
    thresholds = [Threshold(value, relative=True) for value in values]
    for threshold, found in zip(thresholds, collisions(pairs, thresholds), strict=True):
        assert found.threshold == threshold
        compare(pairs, threshold, found)


def test_many_tiles_and_a_width_that_is_no_multiple_of_64(monkeypatch):
    monkeypatch.setattr(supports, "TILE", 1)
    monkeypatch.setattr(supports, "ROW", 77)
    pairs = [gaussian(23, 131, 1 + seed, seed) for seed in range(5)]
    compare(pairs, RMS, collisions(pairs, [RMS])[0])


def test_the_average_collision_rate_is_the_mean_over_pairs():
    pairs = [gaussian(20, 30, 2, seed) for seed in range(4)]
    rate = collisions(pairs, [Threshold(1.0, relative=True)])[0].rate
    expected = sum(float(rate[i, j]) for i in range(4) for j in range(i + 1, 4)) * 2 / (4 * 3)
    assert average_over_pairs(rate) == pytest.approx(expected)
    assert math.isnan(average_over_pairs(rate[:1, :1]))


def test_an_absolute_threshold_sees_shrinking_as_sparsity_and_a_relative_one_does_not():
    big = [gaussian(60, 50, 4, seed, scaling=0.001) for seed in (0, 1)]
    small = [p._replace(scaling=0.1 * p.scaling) for p in big]
    absolute = Threshold(1e-3, relative=False)
    rates = {
        name: [float(c.rate[0, 1]) for c in collisions(pairs, [absolute, RMS])]
        for name, pairs in (("big", big), ("small", small))
    }
    assert rates["small"][0] < 0.1 * rates["big"][0]
    assert rates["small"][1] == rates["big"][1]


@settings(max_examples=40)
@given(updates(least=2, most=2, whole=True), st.integers(1, 12), st.integers(1, 12))
def test_a_map_holds_the_shares_of_each_cell(pairs, h, w):
    S, R = (signs(p, EXACT) for p in pairs)
    found = collision_map(*pairs, EXACT, (h, w))
    height, width = min(h, S.shape[0]), min(w, S.shape[1])
    assert found.shape == (4, height, width)
    kinds = [(S != 0) & (R == 0), (R != 0) & (S == 0), S * R == 1, S * R == -1]
    for y in range(height):
        rows = [a for a in range(S.shape[0]) if a * height // S.shape[0] == y]
        for x in range(width):
            columns = [b for b in range(S.shape[1]) if b * width // S.shape[1] == x]
            for kind, share in zip(kinds, found[:, y, x], strict=True):
                cell = kind[rows][:, columns].double()
                assert float(share) == pytest.approx(float(cell.mean()))


def test_a_map_of_many_tiles_is_the_same(monkeypatch):
    pairs = [gaussian(37, 53, 2, 0), gaussian(37, 53, 3, 1)]
    whole = collision_map(*pairs, RMS, (10, 9))
    monkeypatch.setattr(supports, "TILE", 50)
    assert torch.equal(collision_map(*pairs, RMS, (10, 9)), whole)
    assert whole.std(dim=(1, 2)).min() > 0


def test_a_map_of_a_large_matrix_has_bounded_size_and_agrees_with_the_counts():
    pairs = [gaussian(400, 700, 2, 0), gaussian(400, 700, 2, 1)]
    threshold = Threshold(1.0, relative=True)
    found = collision_map(*pairs, threshold, (100, 70))
    counts = collisions(pairs, [threshold])[0]
    assert found.shape == (4, 100, 70)
    assert float(found[2].mean()) == pytest.approx(float(counts.agreeing[0, 1]) / 280_000)
    assert float(found[3].mean()) == pytest.approx(float(counts.opposing[0, 1]) / 280_000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0.1rms", (0.1, True)), ("0", (0.0, False)), ("1e-3", (1e-3, False)), (" 2 RMS", (2, True))],
)
def test_thresholds_are_read_from_text(text, expected):
    assert tuple(Threshold.parse(text)) == expected


@pytest.mark.parametrize("text", ["0.1rms", "0.001", "0"])
def test_a_threshold_is_written_as_it_is_read(text):
    assert str(Threshold.parse(text)) == text


@pytest.mark.parametrize("text", ["", "rms", "-0.1", "nan", "inf", "0.1 std", "1..2", "1e999"])
def test_a_threshold_that_is_none_is_refused(text):
    with pytest.raises(NloraError, match=r"threshold '.*': give a number ≥ 0"):
        Threshold.parse(text)


def test_a_zero_update_has_no_support_at_any_threshold():
    zero = Factors(torch.zeros(2, 6), torch.ones(5, 2), 1.0)
    for found in collisions([zero, zero], [EXACT, RMS]):
        assert float(found.rate.abs().sum()) == 0


def test_a_map_without_cells_is_refused():
    factors = Factors(torch.ones(2, 6), torch.ones(5, 2), 1.0)
    with pytest.raises(NloraError, match="at least one cell each way"):
        collision_map(factors, factors, EXACT, cells=(0, 3))
