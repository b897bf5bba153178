"""A linear probe: what of a task a logistic regression still reads out of hidden states."""

import warnings

import numpy as np
from numpy import ndarray

from nlora.errors import NloraError

PENALTY = 0.01
"""scikit-learn's C, the inverse weight of the ℓ₂ penalty, over features of unit variance."""


def probed(train: ndarray, labels: ndarray, test: ndarray) -> ndarray:
    """The labels, as indices (n,), that a probe reads out of test states (n, d).

    It is learned from the states (m, d) of training examples and their labels (m,). Each feature is
    brought to mean 0 and variance 1 as on the training examples; multinomial logistic regression
    with an ℓ₂ penalty (C = `PENALTY`) of scikit-learn. Raises NloraError where that is missing.
    """
    try:
        from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped]
        from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
        from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]
        from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped]
    except ImportError:
        raise NloraError(
            "the probe needs scikit-learn: pip install 'nlora[metrics]' (or --probe 0)"
        ) from None
    if len(np.unique(labels)) == 1:
        return np.full(len(test), labels[0])
    regression = make_pipeline(StandardScaler(), LogisticRegression(C=PENALTY, max_iter=1000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        regression.fit(np.asarray(train, dtype=np.float64), labels)
    return regression.predict(np.asarray(test, dtype=np.float64))
