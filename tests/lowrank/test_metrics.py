import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlora.errors import NloraError
from nlora.lowrank.entries import tiles
from nlora.lowrank.factors import Factors
from nlora.lowrank.metrics import entry_norm, geometry, gsr, gsr_of_norms

from .many import as_factors, dense, gaussian, updates


def same(found, expected):
    torch.testing.assert_close(found, torch.as_tensor(expected).double(), rtol=1e-8, atol=1e-8)


def norm(matrix, kind):
    return torch.linalg.matrix_norm(matrix, ord=kind)


@settings(max_examples=40)
@given(updates())
def test_pairs_have_the_values_of_the_written_out_matrices(pairs):
    found = geometry(pairs)
    whole = [dense(p) for p in pairs]
    for i, X in enumerate(whole):
        for j, Y in enumerate(whole):
            same(found.oo[i, j], norm(pairs[i].A @ pairs[j].A.T, "fro") ** 2)
            same(found.awom_input_fro[i, j], norm(X @ Y.T, "fro"))
            same(found.awom_input_spectral[i, j], norm(X @ Y.T, 2))
            same(found.awom_output_fro[i, j], norm(X.T @ Y, "fro"))
            same(found.awom_output_spectral[i, j], norm(X.T @ Y, 2))
            same(found.inner_product[i, j], (X * Y).sum())
            scale = float(X.norm() * Y.norm())
            if scale == 0:
                assert found.cosine[i, j] == 0
                assert found.input_overlap[i, j] == found.output_overlap[i, j] == 0
            else:
                same(found.cosine[i, j], (X * Y).sum() / scale)
                same(found.input_overlap[i, j], (X @ Y.T).norm() / scale)
                same(found.output_overlap[i, j], (X.T @ Y).norm() / scale)


@settings(max_examples=40)
@given(updates())
def test_sizes_have_the_values_of_the_written_out_matrices(pairs):
    found = geometry(pairs)
    for i, X in enumerate(dense(p) for p in pairs):
        sigma = torch.linalg.svdvals(X)
        kept = len(found.spectra[i])
        assert kept == min(pairs[i].A.shape[0], *X.shape)
        same(found.spectra[i], sigma[:kept])
        same(found.frobenius[i], X.norm())
        same(found.nuclear_norm[i], sigma.sum())
        shares = sigma[sigma > 1e-12 * sigma[0]] / sigma.sum()
        expected = (-(shares * shares.log()).sum()).exp() if X.any() else 0.0
        same(found.effective_rank[i], expected)
        assert entry_norm(pairs[i]) == pytest.approx(float(X.abs().sum()), rel=1e-12, abs=1e-12)


@given(updates(most=1), st.sampled_from([(1, 2), (0.5, 1), (1, 3.5), (0.3, 2), (2, 4)]))
def test_gsr_is_equation_9_for_any_p_and_q(pairs, powers):
    q, p = powers
    X = dense(pairs[0])
    if not X.any():
        assert gsr(pairs[0], q, p) == 0
        return
    l_q, l_p = ((X.abs() ** power).sum() ** (1 / power) for power in (q, p))
    expected = float(X.numel() ** (1 / p - 1 / q) * l_q / l_p)
    assert gsr(pairs[0], q, p) == pytest.approx(expected, rel=1e-9)
    assert X.numel() ** (1 / p - 1 / q) * (1 - 1e-9) <= gsr(pairs[0], q, p) <= 1 + 1e-9


def test_gsr_is_one_for_equal_entries_and_least_for_a_single_one():
    assert gsr(as_factors(torch.full((5, 7), -0.3))) == pytest.approx(1)
    single = torch.zeros(5, 7)
    single[2, 3] = 9
    assert gsr(as_factors(single)) == pytest.approx(1 / math.sqrt(35))
    assert gsr_of_norms(9.0, 9.0, 35) == pytest.approx(1 / math.sqrt(35))


@pytest.mark.parametrize("p", [0.5, 1, 2, 3.5])
def test_every_norm_of_a_zero_update_is_0(p):
    assert entry_norm(gaussian(4, 5, 2, scaling=0.0), p) == 0


def test_norms_hold_at_extreme_sizes():
    update = gaussian(20, 30, 3)
    for size in (1e-30, 1e30):
        scaled = update._replace(scaling=size)
        assert gsr(scaled, 0.5, 8) == pytest.approx(gsr(update, 0.5, 8), rel=1e-9)
        assert float(geometry([scaled]).effective_rank[0]) == pytest.approx(
            float(geometry([update]).effective_rank[0]), rel=1e-9
        )


def test_small_singular_values_are_not_lost():
    """Through BᵀB and AAᵀ they would be, below 1e-8 of the largest."""
    update = gaussian(40, 30, 4)
    update.B[:, 3] *= 1e-11
    singular = torch.linalg.svdvals(dense(update))[:4]
    found = geometry([update]).spectra[0]
    assert singular[3] / singular[0] < 1e-10
    torch.testing.assert_close(found, singular, rtol=1e-4, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_factors_are_computed_with_in_double(dtype):
    pairs = [gaussian(30, 20, 4, seed) for seed in (0, 1)]
    pairs = [Factors(p.A.to(dtype), p.B.to(dtype), 4.0) for p in pairs]
    found = geometry(pairs)
    X, Y = (dense(p) for p in pairs)
    assert float(found.inner_product[0, 1]) == pytest.approx(float((X * Y).sum()), rel=1e-10)
    assert entry_norm(pairs[0]) == pytest.approx(float(X.abs().sum()), rel=1e-10)


def test_input_spaces_can_be_orthogonal_where_output_spaces_are_the_same():
    A = torch.eye(4, 10, dtype=torch.float64)
    B = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = geometry([Factors(A[:2], B, 1.0), Factors(A[2:], B, 1.0)])
    assert found.oo[0, 1] == found.awom_input_fro[0, 1] == found.inner_product[0, 1] == 0
    assert found.awom_output_fro[0, 1] > 1


def test_what_falls_when_an_update_merely_shrinks_and_what_does_not():
    big = [gaussian(50, 40, 4, seed) for seed in (0, 1)]
    small = [p._replace(A=0.1 * p.A) for p in big]
    before, after = geometry(big), geometry(small)
    for name in ("oo", "awom_input_fro", "awom_output_spectral", "inner_product"):
        ratio = float(getattr(after, name)[0, 1] / getattr(before, name)[0, 1])
        assert ratio == pytest.approx(1e-4 if name == "oo" else 0.01), name
    same(after.nuclear_norm, 0.1 * before.nuclear_norm)
    assert entry_norm(small[0]) == pytest.approx(0.1 * entry_norm(big[0]))
    for name in ("cosine", "input_overlap", "output_overlap", "effective_rank"):
        torch.testing.assert_close(getattr(after, name), getattr(before, name))
    assert gsr(small[0]) == pytest.approx(gsr(big[0]))


@given(updates(), st.integers(1, 40))
def test_tiles_of_any_size_hold_every_entry_once(pairs, size):
    found = torch.full((len(pairs), *dense(pairs[0]).shape), torch.nan, dtype=torch.float64)
    for rows, columns, values in tiles(pairs, size):
        assert values.numel() <= max(size, len(pairs))
        assert bool(found[:, rows, columns].isnan().all())
        found[:, rows, columns] = values
    torch.testing.assert_close(found, torch.stack([dense(p) for p in pairs]))


GOOD = gaussian(4, 5, 2)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (GOOD._replace(B=torch.ones(4, 3).double()), "update 2: the ranks differ, A .* has 2 rows"),
        (GOOD._replace(A=torch.ones(2, 5).long()), "update 2: A is torch.int64"),
        (GOOD._replace(B=torch.full((4, 2), torch.nan).double()), "update 2: B has .* NaN"),
        (GOOD._replace(A=torch.full((2, 5), torch.inf).double()), "update 2: A has .* infinite"),
        (GOOD._replace(A=torch.ones(5).double()), r"update 2: A has shape \[5\]; not a matrix"),
        (GOOD._replace(scaling=math.nan), "update 2: the scaling is nan"),
        (gaussian(5, 4, 2), r"update 2 is \(5, 4\), update 1 is \(4, 5\): not of one matrix"),
    ],
)
def test_bad_factors_are_named(bad, message):
    with pytest.raises(NloraError, match=message):
        geometry([GOOD, bad])


def test_impossible_powers_are_refused():
    for q, p in ((2, 1), (1, 1), (0, 1)):
        with pytest.raises(NloraError, match="p > q > 0"):
            gsr_of_norms(1.0, 1.0, 4, q, p)
    with pytest.raises(NloraError, match="p > 0"):
        entry_norm(GOOD, 0)
    with pytest.raises(NloraError, match="at least one update"):
        geometry([])
