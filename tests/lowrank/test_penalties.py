import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nlora.errors import NloraError
from nlora.lowrank import l1
from nlora.lowrank.factors import Factors
from nlora.lowrank.l1 import l1_norm_and_grads
from nlora.lowrank.penalties import (
    entrywise_overlap_and_grads,
    factor_norms_and_grads,
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


@pytest.mark.parametrize("penalty", [l1_norm_and_grads, factor_norms_and_grads])
def test_a_penalty_on_nothing_is_an_error(penalty):
    with pytest.raises(NloraError, match="at least one adapted matrix"):
        penalty([])
