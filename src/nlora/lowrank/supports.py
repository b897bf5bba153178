"""Where updates are not zero, and where they meet: collisions (Eqs. 10 and 11) and their maps.

Entries of B·A are hardly ever exactly 0, so the support of an update is where |ΔW[a, b]| exceeds a
threshold: absolute, or relative to the root mean square of its matrix. At an absolute threshold
supports shrink when the update does; at a relative one they do not.

Supports are kept as packed bits, tile by tile; a pair is an AND and a count of bits. Products
of 0/1 matrices take three to five times as long (`benchmarks/analysis.py`).
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from nlora.errors import NloraError
from nlora.lowrank.entries import TILE, tiles
from nlora.lowrank.factors import Factors, check_same_matrix, svd

ROW = 2**13
"""Entries of one update in a tile, at least: shorter ones cost more calls than arithmetic."""


class Threshold(NamedTuple):
    """|ΔW[a, b]| > value, in multiples of the matrix' root mean square if `relative`."""

    value: float
    relative: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """From "0.1rms" or, absolute, "1e-3". Raises NloraError for anything else.

        >>> Threshold.parse("0.1rms"), Threshold.parse("1e-3")
        (Threshold(value=0.1, relative=True), Threshold(value=0.001, relative=False))
        """
        match = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*(rms)?\s*", text, re.IGNORECASE)
        try:
            value = float(match[1]) if match else math.nan
        except ValueError:
            value = math.nan
        if match is None or not math.isfinite(value):
            raise NloraError(
                f"threshold '{text}': give a number ≥ 0, or a multiple of the matrix' root mean "
                "square such as 0.1rms"
            )
        return cls(value, match[2] is not None)

    def __str__(self) -> str:
        return f"{self.value:g}{'rms' if self.relative else ''}"


@dataclass(frozen=True)
class Collisions:
    """The supports of T updates of one matrix at one threshold, counted. Pairs are (T, T)."""

    threshold: Threshold
    size: int
    """Entries of the matrix."""

    both: Tensor
    """Positions in both supports, int64; on the diagonal the size of each support."""

    opposing: Tensor
    """Those of them at which the two entries have opposite signs, int64."""

    users: Tensor
    """(T + 1,), int64: positions by the number of updates whose support holds them."""

    @property
    def rate(self) -> Tensor:
        """CR_ij (Eq. 11): the share of positions in both supports; densities on the diagonal."""
        return self.both.double() / self.size

    @property
    def density(self) -> Tensor:
        """(T,): the share of positions in each support (Theorem 2's "sparsity rate")."""
        return self.rate.diagonal()

    @property
    def expected(self) -> Tensor:
        """s_i·s_j: the rate of independent supports of these densities (Theorem 2, Eq. 12)."""
        return self.density[:, None] * self.density

    @property
    def lift(self) -> Tensor:
        """CR_ij / (s_i·s_j): above 1 where supports seek each other; NaN where one is empty."""
        return self.rate / self.expected

    @property
    def agreeing(self) -> Tensor:
        """Colliding positions at which the two entries have one sign, int64."""
        return self.both - self.opposing

    @property
    def used_by_at_least(self) -> Tensor:
        """(T,): the share of positions in the supports of at least 1, 2, …, T updates (§3.3)."""
        return self.users.flip(0).cumsum(0).flip(0)[1:].double() / self.size


def average_over_pairs(rate: Tensor) -> float:
    """Eq. 10, ACR: the mean over pairs i < j of a (T, T) table; NaN for a single update."""
    count = len(rate)
    above = torch.triu_indices(count, count, offset=1)
    return float(rate[above[0], above[1]].mean())


@torch.no_grad()
def collisions(updates: Sequence[Factors], thresholds: Sequence[Threshold]) -> list[Collisions]:
    """The supports of the updates of one matrix, and where they meet, at each threshold.

    One pass over the entries for all thresholds: several of them are a curve. Memory: the factors,
    one tile, and T² counts a threshold. Raises NloraError for bad factors, and for updates that are
    not of one matrix.
    """
    height, width = check_same_matrix(updates)
    limits = _limits(updates, thresholds)
    counts = [_Counts(len(updates)) for _ in thresholds]
    for tile in tiles(updates, max(TILE, ROW * len(updates))):
        values = tile.values.reshape(len(updates), -1)  # (T, n)
        for limit, count in zip(limits, counts, strict=True):
            count.add((values > limit).cpu().numpy(), (values < -limit).cpu().numpy())
    return [
        Collisions(
            threshold,
            height * width,
            torch.from_numpy(_symmetric(count.both)),
            torch.from_numpy(_symmetric(count.opposing)),
            torch.from_numpy(count.users),
        )
        for threshold, count in zip(thresholds, counts, strict=True)
    ]


@torch.no_grad()
def collision_map(
    first: Factors, second: Factors, threshold: Threshold, cells: tuple[int, int] = (256, 256)
) -> Tensor:
    """Figure 2 of one matrix at bounded resolution: (4, h, w), shares of each cell's positions.

    In order: in the first support only, in the second only, in both with one sign, in both with
    opposite signs; the rest is in neither. h ≤ cells[0] divides out, w ≤ cells[1] divides in.
    Raises NloraError as `collisions` does, and for cells < 1.
    """
    pair = [first, second]
    shape = check_same_matrix(pair)
    if min(cells) < 1:
        raise NloraError(f"a map needs at least one cell each way, not {cells}")
    h, w = min(cells[0], shape[0]), min(cells[1], shape[1])
    down = torch.arange(shape[0]) * h // shape[0]  # the cell of each row
    across = torch.arange(shape[1]) * w // shape[1]
    limit = _limits(pair, [threshold])[0][:, :, None]  # (2, 1, 1)
    shares = torch.zeros(4, h, w, dtype=torch.float64)
    for rows, columns, values in tiles(pair, TILE):
        above, below = (values > limit).cpu(), (values < -limit).cpu()
        a, b = above | below  # (rows, columns) each
        oppose = (above[0] & below[1]) | (below[0] & above[1])
        kinds = torch.stack([a & ~b, b & ~a, a & b & ~oppose, oppose]).double()
        in_columns = kinds.new_zeros(4, kinds.shape[1], w).index_add(2, across[columns], kinds)
        shares.index_add_(1, down[rows], in_columns)
    return shares / (down.bincount()[:, None] * across.bincount())


class _Counts:
    """Running counts of one threshold."""

    def __init__(self, updates: int) -> None:
        self.both = np.zeros((updates, updates), np.int64)
        self.opposing = np.zeros((updates, updates), np.int64)
        self.users = np.zeros(updates + 1, np.int64)

    def add(self, positive: np.ndarray, negative: np.ndarray) -> None:
        """Count a tile: (T, n) booleans of the entries beyond ±threshold."""
        used = (positive | negative).sum(axis=0, dtype=np.int32)
        self.users += np.bincount(used, minlength=len(self.users))
        plus, minus = _packed(positive), _packed(negative)  # (T, words)
        support = plus | minus
        for i in range(len(support)):
            meet = support[i] & support[i:]  # pairs with j ≥ i
            self.both[i, i:] += np.bitwise_count(meet).sum(axis=1, dtype=np.uint32)
            meet &= plus[i] ^ plus[i:]
            self.opposing[i, i:] += np.bitwise_count(meet).sum(axis=1, dtype=np.uint32)


def _packed(mask: np.ndarray) -> np.ndarray:
    """(T, n) booleans as (T, ⌈n/64⌉) words; missing bits are 0."""
    bits = np.packbits(mask, axis=1)
    return np.pad(bits, ((0, 0), (0, -bits.shape[1] % 8))).view(np.uint64)


def _symmetric(upper: np.ndarray) -> np.ndarray:
    return upper + np.triu(upper, 1).T


def _limits(updates: Sequence[Factors], thresholds: Sequence[Threshold]) -> list[Tensor]:
    """Each threshold in units of the updates' entries: (T, 1), float64."""
    size = updates[0].B.shape[0] * updates[0].A.shape[1]
    rms = torch.stack([svd(u).S.norm() / math.sqrt(size) for u in updates])[:, None]
    return [t.value * (rms if t.relative else torch.ones_like(rms)) for t in thresholds]
