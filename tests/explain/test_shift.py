import numpy as np
import pytest

from nlora.explain.shift import cka, cosine


def states(seed, n=7, d=5):
    return np.random.default_rng(seed).normal(size=(n, d))


def test_the_cosine_is_the_mean_over_texts():
    before, after = states(0), states(1)
    each = [a @ b / np.sqrt(a @ a * (b @ b)) for a, b in zip(before, after, strict=True)]
    assert cosine(before, after) == pytest.approx(np.mean(each))
    assert cosine(before, np.zeros_like(before)) == 0


def test_cka_is_its_definition_over_features_and_knows_no_rotation_or_scale():
    before, after = states(0), states(1)
    X, Y = before - before.mean(0), after - after.mean(0)
    definition = np.linalg.norm(Y.T @ X) ** 2 / np.linalg.norm(X.T @ X) / np.linalg.norm(Y.T @ Y)
    assert cka(before, after) == pytest.approx(definition)
    rotation = np.linalg.qr(states(2, 5, 5))[0]
    assert cka(before, 3 * before @ rotation + 1) == pytest.approx(1)
    same = np.ones_like(before)
    assert (cka(before, same), cka(same, 2 * same)) == (0, 1)
