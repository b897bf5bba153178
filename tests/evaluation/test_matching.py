import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlora.errors import NloraError
from nlora.evaluation.matching import (
    Correction,
    divide_by_mean,
    match_answers,
    match_shares,
    probabilities,
    shares_of,
)

seeds = st.integers(0, 2**32 - 1)


def drawn(seed: int, spread: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores of some texts and labels, and shares of the labels."""
    rng = np.random.default_rng(seed)
    texts, labels = rng.integers(1, 80), rng.integers(1, 12)
    scores = spread * rng.standard_normal((texts, labels)) - rng.random((texts, 1)) * 40
    return scores, rng.dirichlet(np.ones(labels))


def plain_match(scores: np.ndarray, shares: np.ndarray, rounds: int = 3_000) -> np.ndarray:
    """The fixed-point iteration alone, as slow as it is."""
    offsets = np.zeros(scores.shape[1])
    for _ in range(rounds):
        offsets += np.log(shares) - np.log(probabilities(scores + offsets).mean(0))
    return offsets - offsets.mean()


def cross_entropy(scores: np.ndarray, targets: np.ndarray, at: np.ndarray) -> float:
    answers = probabilities(at[-1] * scores + at[:-1])
    return float(-(targets * np.log(answers + 1e-300)).sum(1).mean())


@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from([0.01, 1.0, 10.0, 100.0, 1000.0]))
def test_the_mean_predicted_shares_become_what_is_asked(seed, spread):
    scores, shares = drawn(seed, spread)
    found = match_shares(scores, shares)
    assert found.scale == 1
    assert np.abs(probabilities(found(scores)).mean(0) - shares).max() < 1e-7


@pytest.mark.parametrize("seed", range(5))
def test_the_offsets_are_those_of_the_plain_iteration(seed):
    rng = np.random.default_rng(seed)
    scores, shares = 2 * rng.standard_normal((60, 5)), rng.dirichlet(np.full(5, 3.0))
    assert np.allclose(match_shares(scores, shares).offsets, plain_match(scores, shares), atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_what_is_matched_already_needs_no_offset(seed):
    scores, _ = drawn(seed)
    offsets = match_shares(scores, probabilities(scores).mean(0)).offsets
    assert np.abs(offsets).max() < 1e-6


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_constants_of_texts_and_the_order_of_texts_and_labels_change_nothing(seed):
    scores, shares = drawn(seed)
    rng = np.random.default_rng(seed + 1)
    rows, columns = (rng.permutation(n) for n in scores.shape)
    plain = match_shares(scores, shares).offsets
    other = match_shares(
        (scores + 50 * rng.random((len(scores), 1)))[rows][:, columns], shares[columns]
    )
    assert np.allclose(other.offsets, plain[columns], atol=1e-5)


def test_a_label_that_is_never_wanted_is_never_the_answer():
    scores = np.random.default_rng(0).standard_normal((50, 3))
    found = match_shares(scores, np.array([0.5, 0.5, 0.0]))
    assert np.isfinite(found.offsets).all()
    assert 2 not in found(scores).argmax(1)


@settings(max_examples=60, deadline=None)
@given(seeds, st.floats(0.2, 5.0))
def test_answers_that_an_offset_and_a_scale_make_are_found_again(seed, scale):
    rng = np.random.default_rng(seed)
    scores, offsets = 2 * rng.standard_normal((80, 4)), 2 * rng.standard_normal(4)
    targets = probabilities(scale * scores + offsets)
    found = match_answers(scores, targets)
    assert np.allclose(probabilities(found(scores)), targets, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_no_other_offset_and_scale_is_nearer(seed):
    from scipy.optimize import minimize

    rng = np.random.default_rng(seed)
    scores = 3 * rng.standard_normal((40, 5))
    targets = probabilities(0.7 * scores + 3 * rng.standard_normal((40, 5)))
    found = match_answers(scores, targets)
    plain = minimize(
        lambda v: cross_entropy(scores, targets, np.append(v[:-1], np.exp(v[-1]))),
        np.zeros(6),
        method="L-BFGS-B",
    )
    assert cross_entropy(scores, targets, np.append(*found)) <= plain.fun + 1e-6


@pytest.mark.parametrize("spread", [0.1, 3, 300])
def test_answers_that_are_as_they_should_be_stay(spread):
    scores = spread * np.random.default_rng(0).standard_normal((40, 4))
    found = match_answers(scores, probabilities(scores))
    assert np.allclose(found.offsets, 0, atol=1e-2)
    assert found.scale == pytest.approx(1, abs=1e-2)


def test_the_scale_stays_positive_where_the_targets_say_the_opposite():
    scores = np.random.default_rng(0).standard_normal((60, 3))
    found = match_answers(scores, probabilities(-2 * scores))
    assert found.scale == 0.01
    assert (
        np.abs(probabilities(found(scores)).mean(0) - probabilities(-2 * scores).mean(0)).max()
        < 1e-6
    )


def test_right_answers_that_can_all_be_had_end_at_a_finite_scale():
    scores = np.array([[3.0, 0.0], [0.0, 1.0], [2.0, 0.0], [0.0, 2.0]])
    found = match_answers(scores, np.eye(2)[[0, 1, 0, 1]])
    assert 1 < found.scale <= 100
    assert found(scores).argmax(1).tolist() == [0, 1, 0, 1]


def test_dividing_by_the_mean_once_by_hand():
    scores = np.log([[0.8, 0.2], [0.4, 0.6]])  # means 0.6, 0.4
    found = divide_by_mean(scores)
    expected = np.array([[0.8 / 0.6, 0.2 / 0.4], [0.4 / 0.6, 0.6 / 0.4]])
    assert np.allclose(probabilities(found(scores)), expected / expected.sum(1, keepdims=True))


def test_shares_count_each_label_half_a_time_more():
    assert np.allclose(shares_of([0, 0, 1], 3), np.array([2.5, 1.5, 0.5]) / 4.5)


@pytest.mark.parametrize("scores", [np.zeros((0, 3)), np.zeros(3)])
def test_scores_that_are_none_are_refused(scores):
    with pytest.raises(ValueError, match="at least one text and one label"):
        match_shares(scores, np.full(3, 1 / 3))


def test_scores_of_a_model_that_has_diverged_are_one_line():
    finite, diverged = np.zeros((1, 2)), np.array([[np.nan, 1.0]])
    with pytest.raises(NloraError, match="not finite"):
        match_shares(diverged, np.full(2, 1 / 2))
    for scores, targets in ((diverged, finite), (finite, diverged)):
        with pytest.raises(NloraError, match="not finite"):
            match_answers(scores, targets)


def test_a_correction_scales_before_it_adds():
    assert Correction(np.array([1.0, -1.0]), 2.0)(np.array([[1.0, 3.0]])).tolist() == [[3.0, 5.0]]
