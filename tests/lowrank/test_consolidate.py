import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from nlora.lowrank.consolidate import largest
from nlora.lowrank.factors import Factors


@given(
    st.integers(1, 5),
    st.integers(1, 6),
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.integers(0, 99),
)
def test_every_entry_is_that_of_the_update_where_it_is_largest(rows, columns, ranks, seed):
    generator = torch.Generator().manual_seed(seed)

    def factor(*shape: int) -> torch.Tensor:
        return torch.randint(-2, 3, shape, generator=generator).double()

    updates = [
        Factors(factor(rank, columns), factor(rows, rank), float(i - 1.5))
        for i, rank in enumerate(ranks)
    ]
    dense = np.stack([u.scaling * (u.B.numpy() @ u.A.numpy()) for u in updates])
    winner = np.abs(dense).argmax(0)  # NumPy's first of equals, as documented
    expected = np.take_along_axis(dense, winner[None], 0)[0]
    assert np.array_equal(largest(updates).numpy(), expected)


def test_updates_that_do_not_meet_are_summed():
    one = Factors(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0], [0.0]]), 1.0)
    other = Factors(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0], [-3.0]]), 2.0)
    assert torch.equal(largest([one, other]), one.delta() + other.delta())
