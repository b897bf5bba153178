"""The contract of a consolidation: how the updates of one matrix become one change of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar
from zlib import crc32

if TYPE_CHECKING:
    from torch import Tensor

    from nlora.lowrank.factors import Factors


class Consolidation(ABC):
    """A rule that makes one change of many updates, matrix by matrix.

    A task is trained on top of what the updates before it make together; once it is trained its
    update joins them.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    additive: ClassVar[bool] = False
    """The change is the sum of the updates, so the newest can stay an adapter beside the others'
    change, and scalars on earlier updates make sense."""
    alone: ClassVar[bool] = False
    """Every update is trained on the base model and stands alone; none joins another."""

    def merged(self, updates: Sequence[Factors], name: str) -> Factors | Tensor:
        """`merge` of the updates of the matrix of that name, which is the seed of what a rule draws
        at random: the same every time, and not the same in every matrix."""
        import torch

        with torch.random.fork_rng():
            torch.manual_seed(crc32(name.encode()))
            return self.merge(updates)

    @abstractmethod
    def merge(self, updates: Sequence[Factors]) -> Factors | Tensor:
        """The change that at least one update makes, oldest first: factors, or dense (out, in).

        An additive one gives factors.
        """
