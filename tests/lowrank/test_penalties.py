import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nlora.errors import NloraError
from nlora.lowrank import l1
from nlora.lowrank.factors import Factors
from nlora.lowrank.l1 import l1_norm_and_grads
from nlora.lowrank.penalties import (
    column_row_and_grads,
    column_row_shrink,
    entrywise_overlap_and_grads,
    factor_l1_and_grads,
    factor_norms_and_grads,
    frobenius_and_grads,
    overlap_and_grads,
    released_norm_and_grads,
)


@st.composite
def matrices(draw, square=False):
    """Factors of several matrices: in ≠ out, rank 1, rank above both sizes, and zero factors."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    factors = []
    for _ in range(draw(st.integers(1, 3))):
        out, rank = draw(st.integers(1, 6)), draw(st.integers(1, 8))
        size = out if square else draw(st.integers(1, 6))
        zero_a, zero_b = draw(st.sampled_from([(1, 1), (1, 1), (1, 0), (0, 1), (0, 0)]))
        A = zero_a * torch.randn(rank, size, generator=generator, dtype=torch.float64)
        B = zero_b * torch.randn(out, rank, generator=generator, dtype=torch.float64)
        factors.append(Factors(A, B, draw(st.sampled_from([4.0, 1.0, 0.3, -2.0]))))
    return factors


def reference(factors, term):
    """Σ term(A, B, scaling) over the matrices, and its gradients by autograd."""
    leaves = [Factors(A.clone(), B.clone(), s) for A, B, s in factors]
    for A, B, _ in leaves:
        A.requires_grad_()
        B.requires_grad_()
    total = sum(term(j, A, B, s) for j, (A, B, s) in enumerate(leaves))
    total.backward()
    grads = [
        tuple(torch.zeros_like(p) if p.grad is None else p.grad for p in (A, B))
        for A, B, _ in leaves
    ]
    return total.detach(), grads


def agree(found, expected):
    torch.testing.assert_close(found[0], expected[0])
    assert len(found[1]) == len(expected[1])
    for pair, other in zip(found[1], expected[1], strict=True):
        for gradient, wanted in zip(pair, other, strict=True):
            torch.testing.assert_close(gradient, wanted)


@given(matrices())
def test_the_l1_penalty_is_the_sum_of_the_entries_of_the_scaled_update(factors):
    agree(
        l1_norm_and_grads(factors),
        reference(factors, lambda j, A, B, s: (s * (B @ A)).abs().sum()),
    )


@given(matrices(square=True))
def test_the_released_penalty_is_the_small_product_without_scaling(factors):
    found = released_norm_and_grads(factors)
    agree(found, reference(factors, lambda j, A, B, s: (A @ B).abs().sum()))


def test_the_released_penalty_refuses_a_matrix_that_is_not_square():
    square = Factors(torch.ones(2, 4), torch.ones(4, 2), 1.0)
    with pytest.raises(NloraError, match=r"in 4 and out 3: use penalty 'l1'"):
        released_norm_and_grads([square, Factors(torch.ones(2, 4), torch.ones(3, 2), 1.0)])


@given(matrices(), st.integers(1, 4), st.sampled_from([2.0, -0.5]), st.sampled_from([1, 3, 100]))
def test_the_overlap_with_the_past_is_entry_by_entry_whatever_the_blocks(
    factors, rank, scaling, columns
):
    generator = torch.Generator().manual_seed(rank)
    past = [
        Factors(
            torch.randn(rank, A.shape[1], generator=generator, dtype=A.dtype),
            torch.randn(B.shape[0], rank, generator=generator, dtype=B.dtype),
            scaling,
        )
        for A, B, _ in factors
    ]
    expected = reference(factors, lambda j, A, B, s: (s * (B @ A) * past[j].delta()).square().sum())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(l1, "COLUMNS", columns)
        patch.setitem(l1.BLOCK, "cpu", 2 * columns)
        agree(entrywise_overlap_and_grads(factors, past), expected)


@given(matrices(), st.sampled_from(["entrywise", "squared"]), st.integers(1, 5), st.booleans())
def test_the_overlap_compares_the_input_space_with_every_earlier_one(factors, form, rows, zero):
    generator = torch.Generator().manual_seed(rows)
    past = [
        torch.randn(rows, A.shape[1], generator=generator, dtype=A.dtype) * (not zero)
        for A, _, _ in factors
    ]

    def term(j, A, B, s):
        total = A.new_zeros(())
        for row in past[j]:  # earlier directions one by one
            inner = A @ row
            total = total + (inner.abs() if form == "entrywise" else inner**2).sum()
        return total

    agree(overlap_and_grads(factors, past, form), reference(factors, term))


@given(matrices())
def test_factor_norms_are_frobenius_norms_with_gradient_zero_at_zero(factors):
    agree(
        factor_norms_and_grads(factors),
        reference(factors, lambda j, A, B, s: A.norm() + B.norm()),
    )


@given(matrices(), st.sampled_from(["a", "b", "ab"]))
def test_the_norm_of_either_factor_is_without_the_scaling(factors, which):
    def term(j, A, B, s):
        return sum(f.abs().sum() for name, f in (("a", A), ("b", B)) if name in which)

    agree(factor_l1_and_grads(factors, which), reference(factors, term))


@given(matrices())
def test_the_frobenius_penalty_is_the_sum_of_squares_of_the_scaled_update(factors):
    agree(
        frobenius_and_grads(factors),
        reference(factors, lambda j, A, B, s: (s * (B @ A)).square().sum()),
    )


@given(matrices())
def test_the_column_row_bound_is_the_sum_of_the_norms_of_rank_one_parts(factors):
    def term(j, A, B, s):
        return sum((s * torch.outer(B[:, k], A[k])).abs().sum() for k in range(len(A)))

    agree(column_row_and_grads(factors), reference(factors, term))


def test_shrinking_takes_each_matrix_at_its_own_rates_to_exact_zeros():
    """By hand: B moves by 0.5·|s|·‖a_k‖₁·rate, then A by 0.5·|s|·‖b_k‖₁·rate of the new B."""
    A, B = torch.tensor([[1.0, -2.0], [0.0, 0.5]]), torch.tensor([[4.0, 1.0], [-1.0, 0.0]])
    first = Factors(A, B, -2.0)
    second = Factors(torch.tensor([[4.0]]), torch.tensor([[8.0]]), 0.5)
    column_row_shrink([first, second], 0.5, [(0.25, 0.5), (torch.tensor([[0.5]]), 1.0)])
    assert B.tolist() == [[2.5, 0.75], [0.0, 0.0]]  # by 0.5·2·3·0.5 and 0.5·2·0.5·0.5
    assert A.tolist() == [[0.375, -1.375], [0.0, 0.3125]]  # by 0.5·2·2.5·0.25, 0.5·2·0.75·0.25
    assert second.B.tolist() == [[7.0]]  # by 0.5·0.5·4·1
    assert second.A.tolist() == [[3.125]]  # by 0.5·0.5·7·0.5


def test_a_weight_of_0_shrinks_nothing_and_a_bad_weight_or_factor_is_refused():
    pair = Factors(torch.ones(1, 2), torch.ones(3, 1), 1.0)
    column_row_shrink([pair], 0.0, [(1.0, 1.0)])
    assert pair.A.tolist() == [[1.0, 1.0]]
    for weight in (-0.1, float("nan"), float("inf")):
        with pytest.raises(NloraError, match=f"the weight must be .* at least 0, not {weight}"):
            column_row_shrink([pair], weight, [(1.0, 1.0)])
    with pytest.raises(NloraError, match="matrix 2: the ranks differ"):
        column_row_shrink([pair, pair._replace(B=torch.ones(3, 2))], 1.0, [(1.0, 1.0)] * 2)


ONE = torch.ones(1, 1)


@pytest.mark.parametrize("parts", [1, 105])
def test_small_entries_count_beside_large_ones(parts):
    """2²⁶ and 104 ones, in one matrix or in many: one by one, fp32 would lose the ones."""
    entries = torch.tensor([[2.0**26], *[[1.0]] * 104])
    chunks = entries.chunk(parts)
    value, _ = l1_norm_and_grads([Factors(ONE, B, 1.0) for B in chunks])
    assert float(value) == 2**26 + 104
    past = [Factors(ONE, torch.ones_like(B), 1.0) for B in chunks]
    value, _ = entrywise_overlap_and_grads([Factors(ONE, B.sqrt(), 1.0) for B in chunks], past)
    assert float(value) == 2**26 + 104


HALF = Factors(torch.full((2, 4), 0.5).bfloat16(), torch.full((4, 2), 0.25).bfloat16(), 2.0)
PENALTIES = {
    "l1": l1_norm_and_grads,
    "released": released_norm_and_grads,
    "overlap": lambda f: overlap_and_grads(f, [HALF.A] * len(f), "squared"),
    "entrywise overlap": lambda f: entrywise_overlap_and_grads(f, [HALF] * len(f)),
    "factor norms": factor_norms_and_grads,
    "factor l1": lambda f: factor_l1_and_grads(f, which="ab"),
    "frobenius": frobenius_and_grads,
    "column-row": column_row_and_grads,
}


@pytest.mark.parametrize("name", PENALTIES)
def test_half_precision_factors_have_values_and_gradients_in_single_precision(name):
    value, grads = PENALTIES[name]([HALF, HALF._replace(scaling=-1.0)])
    wide = [Factors(HALF.A.double(), HALF.B.double(), s) for s in (2.0, -1.0)]
    expected, wanted = PENALTIES[name](wide)
    assert value.dtype == torch.float32
    assert expected.dtype == torch.float64
    assert float(value) == pytest.approx(float(expected), rel=1e-6)
    for pair, other in zip(grads, wanted, strict=True):
        for found, exact in zip(pair, other, strict=True):
            assert (found.dtype, exact.dtype) == (torch.float32, torch.float64)
            torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("penalty", [l1_norm_and_grads, factor_norms_and_grads])
def test_a_penalty_on_nothing_is_an_error(penalty):
    with pytest.raises(NloraError, match="at least one adapted matrix"):
        penalty([])
