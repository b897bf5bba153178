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


def test_the_metric_is_the_mean_in_per_cent_and_sees_the_source():
    perfect = Prediction("The cat", "the cat", "the feline")
    copied = Prediction("a b", "a c", "a b")
    expected = 50 * (1 + ((2 / 3 + 1) + 1 + 6) / 12)
    assert metric("sari")([perfect, copied]) == pytest.approx(expected)
