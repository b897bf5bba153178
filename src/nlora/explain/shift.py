"""How far a stage moved the hidden states that answers begin from."""

import numpy as np
from numpy import ndarray


def cosine(before: ndarray, after: ndarray) -> float:
    """The mean over texts of the cosine of each text's states, (n, d) both."""
    before, after = before.astype(np.float64), after.astype(np.float64)
    norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    return float(np.mean(np.sum(before * after, axis=1) / np.where(norms > 0, norms, 1.0)))


def cka(before: ndarray, after: ndarray) -> float:
    """Linear centred kernel alignment of the states of n texts, (n, d) both (arXiv 1905.00414).

    ‖YᵀX‖²_F / (‖XᵀX‖_F ‖YᵀY‖_F) with the means over texts taken off: 1 where distances between
    texts are as they were, whatever rotation or scale; 0 where one of them has no distances, and 1
    where both have none.
    """
    X, Y = (states.astype(np.float64) for states in (before, after))
    X, Y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    K, L = X @ X.T, Y @ Y.T  # (n, n): the same norms, by the texts
    scale = np.linalg.norm(K) * np.linalg.norm(L)
    return float((K * L).sum() / scale) if scale else float(not (K.any() or L.any()))
