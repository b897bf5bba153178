"""Consolidations after published merging rules, by PEFT's functions: ties, dare, magnitude.

Each takes every update as a whole matrix and sparsifies it, matrix by matrix:

    ties        of each ΔW_i the largest fifth is kept; of an entry the sign with the larger sum is
                elected, and the mean of those that agree is taken (arXiv:2306.01708)
    dare        of each ΔW_i nine tenths are dropped at random and the rest is multiplied by 10;
                then the sum (arXiv:2311.03099)
    magnitude   of each ΔW_i the largest fifth is kept; then the sum

None is of low rank. An update is sparsified as soon as its task is learned, also when it is the
only one. What is dropped at random is the same every time, by the matrix' name
(`Consolidation.merged`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from nlora.merging.base import Consolidation

if TYPE_CHECKING:
    from torch import Tensor

    from nlora.lowrank.factors import Factors


class Sparsified(Consolidation):
    """A rule of PEFT's for whole matrices that keeps a share of each update's entries."""

    density: ClassVar[float]

    @abstractmethod
    def rule(self, changes: list[Tensor], weights: Tensor) -> Tensor:
        """PEFT's function."""

    def merge(self, updates: Sequence[Factors]) -> Tensor:
        """Dense, since it is not of low rank."""
        import torch

        with torch.no_grad():
            changes = [update.delta() for update in updates]
            return self.rule(changes, changes[0].new_ones(len(changes)))


class Ties(Sparsified):
    """Trim, elect a sign, and average what agrees."""

    name = "ties"
    summary = "per entry the mean of the updates' large entries that agree in sign"
    density = 0.2

    def rule(self, changes: list[Tensor], weights: Tensor) -> Tensor:
        """As PEFT's `ties`, the sign by the sum of magnitudes."""
        from peft.utils.merge_utils import ties

        return ties(changes, weights, self.density)


class Dare(Sparsified):
    """Drop at random, rescale, and add."""

    name = "dare"
    summary = "the sum of updates of which nine tenths are dropped and the rest is scaled up"
    density = 0.1

    def rule(self, changes: list[Tensor], weights: Tensor) -> Tensor:
        """As PEFT's `dare_linear`; drawn on the CPU, whose generator is everywhere the same."""
        from peft.utils.merge_utils import dare_linear

        here = [change.cpu() for change in changes]
        return dare_linear(here, weights.cpu(), self.density).to(changes[0])


class Magnitude(Sparsified):
    """Trim, and add."""

    name = "magnitude"
    summary = "the sum of the largest fifth of each update"
    density = 0.2

    def rule(self, changes: list[Tensor], weights: Tensor) -> Tensor:
        """As PEFT's `magnitude_prune`."""
        from peft.utils.merge_utils import magnitude_prune

        return magnitude_prune(changes, weights, self.density)
