import pytest
import torch

from nlora.adapters.lora import Lora
from nlora.methods.c_lora import given
from nlora.methods.context import Step
from nlora.methods.registry import method
from tests import tiny
from tests.loop import context, stage


@pytest.fixture(scope="module")
def adapter():
    found = Lora(tiny.model("grouped-query"), 3, 6.0, 0.0)
    found.begin()
    with torch.no_grad():
        for factors in found.factors().values():
            factors.B.normal_()
    return found


def test_the_term_is_that_of_the_paper(adapter):
    ctx = context("llama", adapter, stage(1))
    [term] = method("c-lora").build({"subspace_weight": 0.3, "subspace": 5}).penalties(ctx)
    found = term(Step(0, 10, {}))
    value, leaves = 0.0, []
    for name, factors in adapter.factors().items():
        A, B = (p.detach().double().requires_grad_() for p in factors[:2])
        P, Q = given(f"{name}.A", 5, A.shape[1]), given(f"{name}.B", 5, B.shape[0])
        for a in A:
            value = value + sum((a @ p) ** 2 for p in P) / 2
        for b in B.T:
            value = value + sum((b @ q) ** 2 for q in Q) / 2
        leaves += [A, B]
    (0.3 * value).backward()
    assert found.value == pytest.approx(0.3 * float(value.detach()), rel=1e-5)
    for (_, gradient), leaf in zip(found.gradients, leaves, strict=True):
        torch.testing.assert_close(gradient.double(), leaf.grad, rtol=1e-4, atol=1e-6)


def test_the_given_directions_are_orthonormal_and_always_the_same():
    P = given("a", 5, 32)
    torch.testing.assert_close(P @ P.T, torch.eye(5, dtype=torch.float64))
    assert P.equal(given("a", 5, 32))
    assert not P.equal(given("b", 5, 32))
    assert given("a", 128, 32).shape == (16, 32)  # something is left to be learned


def test_without_weight_there_is_no_term(adapter):
    ctx = context("llama", adapter, stage(1))
    assert method("c-lora").build({"subspace_weight": 0}).penalties(ctx) == []
