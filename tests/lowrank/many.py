"""Updates of one matrix in every shape that matters, for hypothesis."""

import torch
from hypothesis import strategies as st

from nlora.lowrank.factors import Factors


@st.composite
def updates(draw, least=1, most=4, whole=False):
    """in ≠ out, rank 1, rank above both sizes, different ranks and scalings, zero and equal rows.

    `whole`: small whole numbers, with many exact zeros in ΔW.
    """
    out, size = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    pairs = []
    for _ in range(draw(st.integers(least, most))):
        rank = draw(st.integers(1, 11))
        if whole:
            A = torch.randint(-1, 2, (rank, size), generator=generator).double()
            B = torch.randint(-1, 2, (out, rank), generator=generator).double()
        else:
            A = torch.randn(rank, size, generator=generator, dtype=torch.float64)
            B = torch.randn(out, rank, generator=generator, dtype=torch.float64)
        kind = draw(st.sampled_from(["plain", "plain", "zero B", "zero A", "equal rows"]))
        if kind == "zero A":
            A = 0 * A
        elif kind == "zero B":
            B = 0 * B
        elif kind == "equal rows":
            A, B = A[:1].expand(rank, -1).clone(), B[:1].expand(out, -1).clone()
        pairs.append(Factors(A, B, draw(st.sampled_from([4.0, 1.0, 0.5, -2.0]))))
    return pairs


def dense(update):
    """ΔW written out: scaling · Σ_k B[:, k] A[k, :]."""
    A, B = update.A.double(), update.B.double()
    rows = [torch.outer(B[:, k], A[k]) for k in range(A.shape[0])]
    return update.scaling * torch.stack(rows).sum(dim=0)


def gaussian(out, size, rank, seed=0, scaling=1.0):
    """A random update."""
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(rank, size, generator=generator, dtype=torch.float64)
    B = torch.randn(out, rank, generator=generator, dtype=torch.float64)
    return Factors(A, B, scaling)


def as_factors(matrix):
    """Any matrix as a factor pair: itself times the identity."""
    matrix = torch.as_tensor(matrix, dtype=torch.float64)
    return Factors(torch.eye(matrix.shape[1], dtype=torch.float64), matrix, 1.0)
