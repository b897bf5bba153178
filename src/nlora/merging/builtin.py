"""The consolidations that are there: sum, largest, retract, none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nlora.merging.base import Consolidation

if TYPE_CHECKING:
    from torch import Tensor

    from nlora.lowrank.factors import Factors


class Sum(Consolidation):
    """W₀ + ΣΔW_i, the paper's."""

    name = "sum"
    summary = "the sum of the updates"
    additive = True

    def merge(self, updates: Sequence[Factors]) -> Factors:
        """One factor pair, whose rank is the sum of the ranks."""
        from nlora.lowrank.factors import concatenate

        return concatenate(updates)


class Largest(Consolidation):
    """W₀ + per entry the ΔW_i of largest magnitude."""

    name = "largest"
    summary = "per entry the update of largest magnitude"

    def merge(self, updates: Sequence[Factors]) -> Tensor:
        """Dense, since it is not of low rank."""
        from nlora.lowrank.consolidate import largest

        return largest(updates)


class Retract(Consolidation):
    """W₀ + one change of the updates' rank, into which each is folded (CoDe-LoRA's)."""

    name = "retract"
    summary = "one change of the updates' rank, into which each is folded with weight 1/√t"

    def merge(self, updates: Sequence[Factors]) -> Factors:
        """Of the rank of the first update."""
        from nlora.lowrank.consolidate import retracted

        return retracted(updates)


class Alone(Consolidation):
    """W₀ + one ΔW_i: a method that asks for this chooses which (routing)."""

    name = "none"
    summary = "each update stands alone"
    alone = True

    def merge(self, updates: Sequence[Factors]) -> Factors:
        """The newest."""
        return updates[-1]
