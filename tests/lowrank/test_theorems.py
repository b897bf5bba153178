"""The paper's three theorems: in the form that holds, and counterexamples to the printed one."""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from nlora.lowrank.factors import Factors
from nlora.lowrank.metrics import geometry, gsr
from nlora.lowrank.supports import Threshold, collisions

from .many import as_factors, dense, gaussian

EXACT = Threshold(0.0, relative=False)


def disjoint(draw, out, size):
    """Two matrices of which at least one is 0 at every position."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    owner = torch.randint(0, 3, (out, size), generator=generator)
    values = torch.randn(2, out, size, generator=generator, dtype=torch.float64)
    return values[0] * (owner == 0), values[1] * (owner == 1)


# Theorem 1. Paper's layout: ΔW₁ᵀΔW₂; here, with transposed matrices, ΔW₁ @ ΔW₂ᵀ.


@given(st.data(), st.integers(1, 8), st.integers(1, 8))
def test_theorem_1_as_it_holds_no_collision_gives_a_zero_diagonal_and_inner_product(data, o, i):
    X, Y = disjoint(data.draw, o, i)
    assert not (X @ Y.T).diagonal().any()
    assert not (X.T @ Y).diagonal().any()
    pairs = [as_factors(X), as_factors(Y)]
    assert int(collisions(pairs, [EXACT])[0].both[0, 1]) == 0
    assert float(geometry(pairs).inner_product[0, 1]) == pytest.approx(0, abs=1e-12)


@given(st.integers(1, 8), st.integers(2, 8), st.integers(0, 2**16))
def test_theorem_1_as_it_holds_disjoint_input_columns_are_orthogonal(out, size, seed):
    """The paper's rows are PEFT's input columns."""
    first, second = gaussian(out, size, 2, seed), gaussian(out, size, 3, seed + 1)
    first.A[:, size // 2 :] = 0
    second.A[:, : size // 2] = 0
    found = geometry([first, second])
    assert float(found.awom_input_fro[0, 1]) == pytest.approx(0, abs=1e-12)
    assert float(found.oo[0, 1]) == 0


def test_theorem_1_as_printed_fails_for_disjoint_supports():
    """In the paper's layout [1 0] and [0 1]; their transposes here."""
    X, Y = torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [1.0]])
    pairs = [as_factors(X), as_factors(Y)]
    assert int(collisions(pairs, [EXACT])[0].both[0, 1]) == 0
    assert torch.equal(X @ Y.T, torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    found = geometry(pairs)
    assert float(found.awom_input_fro[0, 1]) == pytest.approx(1)
    assert float(found.inner_product[0, 1]) == 0


def test_orthogonality_does_not_need_disjoint_supports():
    pairs = [as_factors([[1.0, 1.0]]), as_factors([[1.0, -1.0]])]
    assert float(geometry(pairs).awom_input_fro[0, 1]) == pytest.approx(0, abs=1e-15)
    assert float(collisions(pairs, [EXACT])[0].rate[0, 1]) == 1


# Theorem 2.


@pytest.mark.parametrize(("first", "second"), [(0.5, 0.2), (0.05, 0.1), (0.9, 0.9)])
def test_theorem_2_holds_for_independent_supports(first, second):
    generator = torch.Generator().manual_seed(0)
    shape = (300, 400)
    pairs = [
        as_factors((torch.rand(shape, generator=generator) < s).double()) for s in (first, second)
    ]
    found = collisions(pairs, [EXACT])[0]
    deviation = math.sqrt(first * second * (1 - first * second) / (300 * 400))
    assert float(found.rate[0, 1]) == pytest.approx(first * second, abs=5 * deviation)
    assert float(found.lift[0, 1]) == pytest.approx(1, abs=5 * deviation / (first * second) + 0.02)


def test_theorem_2_fails_where_supports_share_columns():
    """Low-rank supports are rows × columns; here a tenth of the inputs is large for both tasks."""
    pairs = []
    for seed in (0, 1):
        A = torch.randn(1, 400, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        A[:, 40:] *= 0.01
        pairs.append(Factors(A, gaussian(300, 400, 1, seed + 5).B, 1.0))
    found = collisions(pairs, [Threshold(0.5, relative=True)])[0]
    assert float(found.lift[0, 1]) > 5
    assert float(found.rate[0, 1]) > 5 * float(found.expected[0, 1])


# Theorem 3: GSR as a density, of the absolute values.

entries = st.lists(
    st.floats(-4, 4, allow_subnormal=False).filter(lambda x: x == 0 or abs(x) > 1e-3),
    min_size=2,
    max_size=12,
)


def density(values):
    row = torch.tensor([list(values)], dtype=torch.float64)
    return gsr(Factors(row, torch.ones(1, 1, dtype=torch.float64), 1.0))


@given(entries, st.floats(0.05, 0.95))
def test_d1_moving_mass_from_a_larger_to_a_smaller_entry_raises_it(values, share):
    absolute = sorted((abs(v) for v in values), reverse=True)
    gap = absolute[0] - absolute[-1]
    assume(gap > 0.1)
    amount = share * gap / 2
    moved = [absolute[0] - amount, *absolute[1:-1], absolute[-1] + amount]
    assert density(moved) > density(absolute)


def test_d1_fails_on_signed_entries():
    assert density([3, -1, 0]) == pytest.approx(0.730, abs=5e-4)
    assert density([2, 0, 0]) == pytest.approx(0.577, abs=5e-4)


@given(entries, st.floats(1e-3, 1e3), st.sampled_from([1, -1]))
def test_d2_scaling_leaves_it(values, scale, sign):
    assert density([sign * scale * v for v in values]) == pytest.approx(density(values), rel=1e-9)


@given(entries, st.floats(0.1, 5))
def test_d3_adding_a_constant_to_every_absolute_value_raises_it(values, amount):
    absolute = [abs(v) for v in values]
    raised = density([v + amount for v in absolute])
    if max(absolute) - min(absolute) > 0.1:
        assert raised > density(absolute)
    elif max(absolute) == min(absolute):
        assert raised == pytest.approx(1)


def test_d3_fails_on_signed_entries():
    before = [-1, -1, -1, 2]
    assert density(before) == pytest.approx(0.945, abs=5e-4)
    assert density([v + 0.5 for v in before]) == pytest.approx(0.756, abs=5e-4)


@given(entries, st.integers(2, 4))
def test_d4_cloning_leaves_it(values, times):
    assert density(values * times) == pytest.approx(density(values), rel=1e-9)


@given(entries)
def test_p1_one_entry_going_to_infinity_takes_it_to_its_minimum(values):
    least = 1 / math.sqrt(len(values))
    rising = [density([10.0**k, *values[1:]]) for k in (3, 6, 12)]
    assert rising[0] >= rising[1] >= rising[2] >= least * (1 - 1e-9)
    assert rising[2] == pytest.approx(least, rel=1e-6)


@given(entries, st.integers(1, 5))
def test_p2_adding_zeros_lowers_it(values, zeros):
    assume(any(values))
    assert density([*values, *[0.0] * zeros]) < density(values)


def test_equation_17_is_not_invariant_to_cloning_and_rises_with_zeros():
    """Eq. 17 has √(mn) in the numerator: a vector twice as long is twice as "sparse"."""

    def printed(values):
        x = torch.tensor(values, dtype=torch.float64)
        return float(math.sqrt(len(x)) * x.abs().sum() / x.norm())

    x = [3.0, -1.0, 0.5, 0.0]
    assert printed(x * 2) == pytest.approx(2 * printed(x))
    assert density(x * 2) == pytest.approx(density(x))
    assert printed([*x, 0.0]) > printed(x)
    assert density([*x, 0.0]) < density(x)


# The numbers that show which measures follow an update's size.


def test_random_updates_scaled_by_a_tenth_keep_density_and_relative_collisions():
    size = 512
    scaling = 1e-3  # entries have a standard deviation of √8 · 1e-3
    big = [gaussian(size, size, 8, seed, scaling) for seed in (0, 1)]
    small = [p._replace(scaling=scaling / 10) for p in big]
    thresholds = [Threshold(1e-3, relative=False), Threshold(0.1, relative=True)]
    before = [float(c.rate[0, 1]) for c in collisions(big, thresholds)]
    after = [float(c.rate[0, 1]) for c in collisions(small, thresholds)]
    assert after[0] < before[0] / 10
    assert after[1] == before[1]
    assert gsr(small[0]) == pytest.approx(gsr(big[0]))
    assert float(dense(big[0]).abs().sum()) > 9 * float(dense(small[0]).abs().sum())
