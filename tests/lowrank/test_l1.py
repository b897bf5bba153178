import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from nlora.errors import NloraError
from nlora.lowrank import l1
from nlora.lowrank.factors import Factors
from nlora.lowrank.l1 import l1_norm, l1_norm_and_grads


def draw_factors(shapes, dtype=torch.float64, scaling=4.0, seed=0):
    """Factors of matrices (out, in, rank)."""
    generator = torch.Generator().manual_seed(seed)
    return [
        Factors(
            torch.randn(rank, size, generator=generator, dtype=torch.float64).to(dtype),
            torch.randn(out, rank, generator=generator, dtype=torch.float64).to(dtype),
            scaling,
        )
        for out, size, rank in shapes
    ]


def trainable(factors):
    return [
        Factors(A.clone().requires_grad_(), B.clone().requires_grad_(), s) for A, B, s in factors
    ]


def plain(factors):
    """The oracle: every ΔW in float64, and autograd."""
    leaves = trainable([Factors(A.double(), B.double(), s) for A, B, s in factors])
    value = sum((s * (B @ A)).abs().sum() for A, B, s in leaves)
    value.backward()
    return value.detach(), [(A.grad, B.grad) for A, B, _ in leaves]


def error(found, exact):
    return float((found.double() - exact).norm() / exact.norm())


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks so small that small matrices have several, of unequal sizes."""
    monkeypatch.setitem(l1.BLOCK, "cpu", 12)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(l1, "COLUMNS", 4)


@st.composite
def matrices(draw):
    """Several matrices, some of one shape; rank above both sizes, rank 1, and zero factors."""
    shapes = draw(
        st.lists(
            st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 11)),
            min_size=1,
            max_size=3,
        )
    )
    factors = draw_factors(shapes * draw(st.integers(1, 3)), seed=draw(st.integers(0, 2**16)))
    scalings = st.sampled_from([4.0, 0.3, -2.0])
    zero = st.sampled_from([1.0, 1.0, 1.0, 0.0])
    return [Factors(draw(zero) * A, draw(zero) * B, draw(scalings)) for A, B, _ in factors]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.filterwarnings("error:An output with one or more elements was resized")
@pytest.mark.parametrize("together", [1, 100, 10**6])
@given(factors=matrices())
def test_value_and_gradient_are_those_of_the_product_whatever_the_blocks(together, factors):
    l1.TOGETHER["cpu"], before = together, l1.TOGETHER["cpu"]
    try:
        value, grads = l1_norm_and_grads(factors)
    finally:
        l1.TOGETHER["cpu"] = before
    expected, wanted = plain(factors)
    torch.testing.assert_close(value, expected)
    for pair, other in zip(grads, wanted, strict=True):
        torch.testing.assert_close(pair[0], other[0])
        torch.testing.assert_close(pair[1], other[1])


WIDE = [(8, 65536, 1), (700, 1500, 8), (16384, 32, 2), (64, 4096, 64)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", WIDE)
def test_single_precision_loses_no_more_than_a_millionth(shape, dtype):
    factors = draw_factors([shape], dtype)
    value, [(dA, dB)] = l1_norm_and_grads(factors)
    expected, [(exact_a, exact_b)] = plain(factors)  # of the rounded factors
    assert value.dtype == dA.dtype == dB.dtype == torch.float32
    assert abs(float(value) / float(expected) - 1) < 1e-6
    # where fp32 cannot tell the sign of an entry, the plain gradient is off by as much
    assert max(error(dA, exact_a), error(dB, exact_b)) < 1e-5


def test_autograd_gives_each_factor_its_gradient_in_its_dtype():
    factors = trainable(draw_factors([(30, 20, 4), (8, 40, 2)], torch.bfloat16))
    (3 * l1_norm(factors)).backward()
    _, expected = plain([Factors(A.detach(), B.detach(), s) for A, B, s in factors])
    for (A, B, _), (dA, dB) in zip(factors, expected, strict=True):
        assert A.grad.dtype == torch.bfloat16
        assert max(error(A.grad, 3 * dA), error(B.grad, 3 * dB)) < 1e-2


def test_a_frozen_factor_gets_no_gradient():
    [(A, B, s)] = trainable(draw_factors([(5, 7, 2)]))
    l1_norm([Factors(A.detach(), B, s)]).backward()
    assert A.grad is None
    torch.testing.assert_close(B.grad, plain([Factors(A.detach(), B.detach(), s)])[1][0][1])


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_gradcheck(reduction):
    first, second = trainable(draw_factors([(5, 6, 2), (7, 3, 3)], scaling=-0.5))

    def norm(*tensors):
        pairs = zip(tensors[::2], tensors[1::2], strict=True)
        return l1_norm([Factors(A, B, -0.5) for A, B in pairs], reduction)

    assert torch.autograd.gradcheck(norm, (first.A, first.B, second.A, second.B))


def test_the_mean_is_over_the_entries_of_all_matrices_together():
    factors = draw_factors([(5, 7, 2), (30, 4, 1)])
    expected = plain(factors)[0] / (5 * 7 + 30 * 4)
    torch.testing.assert_close(l1_norm(factors, "mean"), expected)


class Largest(TorchDispatchMode):
    """The entries of the largest tensor that any operation makes."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.entries = max(self.entries, tensor.untyped_storage().size() // 4)
        return out


def test_no_product_is_ever_stored(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    out, size, rank = 2048, 3000, 4
    factors = trainable(draw_factors([(out, size, rank)] * 2, torch.float32))
    with Largest() as largest:
        l1_norm(factors).backward()
    assert 0 < largest.entries <= l1.BLOCK["cpu"] < out * size / 20


def test_the_closed_form_makes_no_graph():
    value, grads = l1_norm_and_grads(trainable(draw_factors([(5, 7, 2)])))
    assert not any(t.requires_grad for t in (value, *grads[0]))


def test_autocast_does_not_round():
    factors = trainable(draw_factors([(300, 200, 8)], torch.float32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = l1_norm(factors)
    value.backward()
    expected, [(dA, dB)] = plain([f._replace(A=f.A.detach(), B=f.B.detach()) for f in factors])
    assert abs(value.item() / float(expected) - 1) < 1e-6
    assert max(error(factors[0].A.grad, dA), error(factors[0].B.grad, dB)) < 1e-5


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_nothing(reentrant):
    [(A, B, s)] = trainable(draw_factors([(9, 7, 2)]))
    value = checkpoint(lambda a, b: l1_norm([(2 * a, b, s)]), A, B, use_reentrant=reentrant)
    value.backward()
    expected, [(dA, dB)] = plain([Factors(2 * A.detach(), B.detach(), s)])
    torch.testing.assert_close(value.detach(), expected)
    torch.testing.assert_close(A.grad, 2 * dA)
    torch.testing.assert_close(B.grad, dB)


def test_it_stands_in_a_compiled_loss():
    [(A, B, s)] = trainable(draw_factors([(9, 7, 2)]))

    def loss(A, B):
        return (A * A).sum() + 0.5 * l1_norm([Factors(2 * A, B, s)])

    torch.compile(loss, backend="aot_eager")(A, B).backward()
    _, [(dA, dB)] = plain([Factors(2 * A.detach(), B.detach(), s)])
    torch.testing.assert_close(A.grad, 2 * A.detach() + dA)
    torch.testing.assert_close(B.grad, 0.5 * dB)


def test_a_second_derivative_is_refused_not_wrong():
    [(A, B, s)] = trainable(draw_factors([(5, 7, 2)]))
    with pytest.raises(NloraError, match="once only"):
        torch.autograd.grad(l1_norm([Factors(A, B, s)]), A, create_graph=True)


def broken(entry):
    A, B, s = draw_factors([(5, 7, 2)], torch.float32)[0]
    B[3, 1] = entry
    return Factors(A, B, s)


GOOD = draw_factors([(5, 7, 2)], torch.float32)[0]
BAD = [
    ([], "at least one adapted matrix"),
    ([GOOD, GOOD._replace(B=torch.ones(5, 3))], r"matrix 2: the ranks differ, .*2 rows.*3 columns"),
    ([GOOD._replace(A=torch.ones(2, 7).int())], "matrix 1: A is torch.int32"),
    ([GOOD._replace(A=GOOD.A.double())], "not of one dtype"),
    ([GOOD._replace(B=torch.ones(5))], "not a matrix"),
    ([GOOD._replace(scaling=float("nan"))], "scaling is nan"),
    ([GOOD, broken(float("nan"))], "matrix 2: B has entries that are NaN or infinite"),
    ([GOOD, broken(float("inf"))], "matrix 2: B has entries that are NaN or infinite"),
    ([GOOD._replace(A=GOOD.A * float("inf"))], "matrix 1: A has entries"),
    ([GOOD._replace(A=GOOD.A * 1e30, B=GOOD.B * 1e30)], "so large"),
]


@pytest.mark.parametrize(("factors", "message"), BAD)
@pytest.mark.parametrize("function", [l1_norm, l1_norm_and_grads])
def test_bad_factors_are_one_clear_line(function, factors, message):
    with pytest.raises(NloraError, match=message) as raised:
        function(factors)
    assert "\n" not in str(raised.value)


def test_an_unknown_reduction_is_one_clear_line():
    with pytest.raises(NloraError, match="unknown reduction 'max'"):
        l1_norm([GOOD], "max")
