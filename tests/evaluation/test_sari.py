"""SARI against cases that were computed by hand."""

import pytest

from nlora.evaluation.answers import Prediction
from nlora.evaluation.metrics import metric
from nlora.evaluation.sari import sari_of


def test_the_reference_itself_is_perfect():
    assert sari_of("A feline perched there.", "A cat sat there.", "A cat sat there.") == 1
    assert sari_of("same text", "same text", "same text") == 1


def test_a_copied_source_has_added_nothing():
    # 1-grams: added 0 (c is missing); kept: precision 1/2, recall 1, F1 2/3; deleted 1 of nothing.
    # 2-grams: added 0 ("a c" is missing); kept: precision 0; deleted 1.
    # 3- and 4-grams: there are none, so 1 each.
    expected = ((0 + 2 / 3 + 1) + (0 + 0 + 1) + 3 + 3) / 12
    assert sari_of("a b", "a b", "a c") == pytest.approx(expected)


def test_a_deletion_that_is_wrong_costs_precision():
    # 1-grams: deleted {a, b}, of which b should go: 1/2; kept 0; added 1/2 of F1: {x, c}, {c}: 2/3.
    # 2-grams: added {"x c"} for {"a c"}: 0; kept: none of either: 1; deleted "a b": 1.
    expected = ((2 / 3 + 0 + 1 / 2) + (0 + 1 + 1) + 3 + 3) / 12
    assert sari_of("a b", "x c", "a c") == pytest.approx(expected)


def test_a_word_twice_is_two_words():
    # Kept "a" twice where once is right: precision 1/2, recall 1; nothing was deleted: 1.
    # 2-grams: kept "a a", which should have gone: precision 0; deleted 1; added 1.
    expected = ((1 + 2 / 3 + 1) + (1 + 0 + 1) + 3 + 3) / 12
    assert sari_of("a a", "a a", "a") == pytest.approx(expected)


def test_n_grams_of_four_lengths_count():
    # Added: nothing of {x, "c x", "b c x", "a b c x"}: 0. Deleted: what holds e, rightly: 1.
    # Kept, of each length: precision 3/4, 2/3, 1/2 and 0 of what was kept, recall 1.
    expected = (6 / 7 + 4 / 5 + 2 / 3 + 0 + 4 * 1) / 12
    assert sari_of("a b c d e", "a b c d", "a b c x") == pytest.approx(expected)


def test_one_of_several_copies_that_is_deleted_counts_once():
    # 1-grams: one a was deleted, rightly: 1; kept 0; b was not added: 0. The other lengths: "a a"
    # and "a a a" were deleted, rightly: 1; kept "a a": 0; nothing to be added: 1; 4-grams: 3.
    expected = ((0 + 0 + 1) + (1 + 0 + 1) + (1 + 1 + 1) + 3) / 12
    assert sari_of("a a a", "a a", "b") == pytest.approx(expected)


def test_what_is_kept_wrongly_in_place_of_what_should_be_is_worth_nothing():
    # 1-grams: nothing to be added: 1; kept a for b: 0; deleted b, wrongly: 0. 2-grams: "a b" was
    # deleted, rightly: 3. There are no longer ones: 3 each.
    assert sari_of("a b", "a", "b") == pytest.approx(((1 + 0 + 0) + 3 + 3 + 3) / 12)


def test_the_metric_is_the_mean_in_per_cent_and_sees_the_source():
    perfect = Prediction("The cat", "the cat", "the feline")
    copied = Prediction("a b", "a c", "a b")
    expected = 50 * (1 + ((2 / 3 + 1) + 1 + 6) / 12)
    assert metric("sari")([perfect, copied]) == pytest.approx(expected)
