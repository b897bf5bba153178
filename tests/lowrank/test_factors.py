import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nlora.lowrank.factors import Factors, concatenate, recompress


@st.composite
def updates(draw, most=4):
    """Some updates of one matrix: in ≠ out, rank 1, rank above both sizes, and zero factors."""
    out, size = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    pairs = []
    for _ in range(draw(st.integers(1, most))):
        rank = draw(st.integers(1, 9))
        A = torch.randn(rank, size, generator=generator, dtype=torch.float64)
        B = torch.randn(out, rank, generator=generator, dtype=torch.float64)
        scaling = draw(st.sampled_from([4.0, 1.0, 0.3, -2.0]))
        pairs.append(Factors(A, B * draw(st.sampled_from([1.0, 1.0, 1.0, 0.0])), scaling))
    return pairs


def dense(pair):
    """scaling · Σ_k B[:, k] A[k, :], written out."""
    rows = [torch.outer(pair.B[:, k], pair.A[k]) for k in range(pair.A.shape[0])]
    return pair.scaling * torch.stack(rows).sum(dim=0)


@given(updates())
def test_delta_is_the_scaled_product_and_concatenation_is_the_exact_sum(pairs):
    for pair in pairs:
        torch.testing.assert_close(pair.delta(), dense(pair))
    together = concatenate(pairs)
    assert together.A.shape[0] == together.B.shape[1] == sum(p.A.shape[0] for p in pairs)
    torch.testing.assert_close(together.delta(), sum(dense(p) for p in pairs))


@given(updates(), st.integers(1, 8))
def test_recompression_drops_the_smallest_singular_values_and_no_more(pairs, rank):
    together = concatenate(pairs)
    whole = together.delta()
    small, error = recompress(together._replace(A=together.A / 3, scaling=3.0), rank)
    assert small.A.shape[0] == small.B.shape[1] <= rank
    singular = torch.linalg.svdvals(whole)
    dropped = float(singular[rank:].norm())
    scale = float(singular.norm())
    assert float((small.delta() - whole).norm()) == pytest.approx(dropped, abs=1e-9 * (1 + scale))
    assert error * scale == pytest.approx(dropped, abs=1e-9 * (1 + scale))


@given(updates(most=2), st.integers(0, 3))
def test_recompression_loses_nothing_where_the_rank_suffices(pairs, spare):
    together = concatenate([*pairs, *pairs])  # twice the rank that the sum needs
    rank = max(1, int(torch.linalg.matrix_rank(together.delta()))) + spare
    small, error = recompress(together, rank)
    assert error < 1e-7
    torch.testing.assert_close(small.delta(), together.delta(), rtol=1e-7, atol=1e-7)


def test_factors_of_a_rank_within_the_bound_are_left_as_they_are():
    pair = Factors(torch.randn(3, 5), torch.randn(4, 3), 2.0)
    kept, error = recompress(pair, 3)
    assert kept.A is pair.A
    assert kept.B is pair.B
    assert error == 0.0


def test_recompression_keeps_the_dtype_and_computes_in_double():
    torch.manual_seed(0)
    A, B = torch.randn(6, 40), torch.randn(30, 6)
    A[3:], B[:, 3:] = A[:3], -B[:, :3] * (1 - 1e-6)  # cancels almost: fp32 would be left with noise
    small, error = recompress(Factors(A, B, 1.0), 3)
    assert small.A.dtype == small.B.dtype == torch.float32
    exact = B.double() @ A.double()
    assert float((small.B.double() @ small.A.double() - exact).norm() / exact.norm()) < 1e-5
    assert error < 1e-9
