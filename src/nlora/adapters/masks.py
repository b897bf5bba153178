"""Which positions of a matrix an update may change, task after task.

identical      the same for every task: any two collide at all of them, at the rate s of the density
independent    drawn anew: two collide by chance, at the rate s² on average
disjoint       drawn among those that no earlier task has: none collides, as long as tasks · s ≤ 1

A mask is its positions, (n,) int64, ascending, in the matrix read row by row.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Masks = Literal["identical", "independent", "disjoint"]


def mask(
    kind: Masks, size: int, count: int, earlier: Sequence[Tensor], random: np.random.Generator
) -> Tensor:
    """`count` of the `size` positions of a matrix, given the masks of earlier tasks.

    Disjoint ones need (len(earlier) + 1) · count ≤ size.
    """
    if kind == "identical" and earlier:
        return earlier[0].cpu()
    taken = np.empty(0, np.int64)
    if kind == "disjoint" and earlier:
        taken = np.sort(torch.cat(list(earlier)).cpu().numpy())
    drawn = np.sort(random.choice(size - len(taken), count, replace=False, shuffle=False))
    # Among the free positions so far: move each behind the taken ones that stand before it.
    before = np.searchsorted(taken - np.arange(len(taken)), drawn, side="right")
    return torch.from_numpy(drawn + before)


def collision_rate(one: Tensor, other: Tensor, size: int) -> float:
    """The share of a matrix' positions that are in both masks (Eq. 11)."""
    return int(torch.isin(one, other, assume_unique=True).sum()) / size
