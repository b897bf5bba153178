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

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], tuple[Sequence[Factors], Factors]] = {}
        """What earlier updates were folded into, since a model that is asked stage by stage folds
        the same ones again and again: by the tensors, and how often each was changed in place."""

    def merge(self, updates: Sequence[Factors]) -> Factors:
        """Of the rank of the first update."""
        from nlora.lowrank.consolidate import folded

        shared = updates[0]
        for t, update in enumerate(updates[1:], start=2):
            given = updates[:t]
            key = tuple(number for u in given for x in (u.A, u.B) for number in _as_it_is(x))
            if key in self._known:
                shared = self._known[key][1]
                continue
            shared = folded(shared, update, t)
            if t < len(updates):  # the newest may be in training
                self._known[key] = given, shared  # with the tensors, whose ids stay theirs
        return shared


class Alone(Consolidation):
    """W₀ + one ΔW_i: a method that asks for this chooses which (routing)."""

    name = "none"
    summary = "each update stands alone"
    alone = True

    def merge(self, updates: Sequence[Factors]) -> Factors:
        """The newest."""
        return updates[-1]


def _as_it_is(tensor: Tensor) -> tuple[int, int]:
    """Which tensor, and how often it was changed in place, as far as that is counted."""
    return id(tensor), 0 if tensor.is_inference() else tensor._version
