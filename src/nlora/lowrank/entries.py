"""The entries of ΔW, tile by tile: what needs them never holds a whole matrix."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nlora.lowrank.factors import Factors

TILE = 2**19
"""Entries held at once, over all updates together: 4 MB, which a core's cache almost holds."""


class Tile(NamedTuple):
    """The same part of the updates of one matrix."""

    rows: slice
    columns: slice
    values: Tensor
    """(T, rows, columns), float64, scaling included. Overwritten by the next tile."""


def tiles(updates: Sequence[Factors], size: int = TILE) -> Iterator[Tile]:
    """All entries of the updates of one matrix, in tiles of about `size` entries."""
    height, width = updates[0].B.shape[0], updates[0].A.shape[1]
    columns = max(1, min(width, size // len(updates)))
    rows = max(1, min(height, size // (len(updates) * columns)))
    As = [u.A.double() for u in updates]  # (r, in) each
    Bs = [u.scaling * u.B.double() for u in updates]  # (out, r) each
    buffer = As[0].new_empty(len(updates) * rows * columns)
    for left in range(0, width, columns):
        across = slice(left, min(left + columns, width))
        parts = [A[:, across].contiguous() for A in As]
        for top in range(0, height, rows):
            down = slice(top, min(top + rows, height))
            shape = (len(updates), down.stop - down.start, across.stop - across.start)
            values = buffer[: shape[0] * shape[1] * shape[2]].view(shape)
            for i, (A, B) in enumerate(zip(parts, Bs, strict=True)):
                torch.mm(B[down], A, out=values[i])  # (rows, r) @ (r, columns)
            yield Tile(down, across, values)
