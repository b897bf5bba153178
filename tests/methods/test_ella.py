import pytest
import torch

from nlora.adapters.lora import Lora
from nlora.errors import NloraError
from nlora.methods.context import Step
from nlora.methods.registry import method
from tests import tiny
from tests.loop import context, stage
from tests.methods.helpers import TASKS, learn, losses, same_bits, stages, update

RANK, ALPHA = 3, 6.0
S = ALPHA / RANK


def third_stage(shape: str = "grouped-query") -> Lora:
    """An adapter with two of other sizes before it."""
    adapter = Lora(tiny.model(shape), RANK, ALPHA, 0.0)
    for number, size in ((1, 0.3), (2, 0.1), (3, 0.02)):
        torch.manual_seed(number)
        adapter.begin()
        with torch.no_grad():
            for factors in adapter.factors().values():
                factors.B.normal_(std=size)
    return adapter


def penalties(adapter: Lora, index: int = 3, name: str = "ella", **settings):
    ctx = context("llama", adapter, stage(index))
    found = method(name).build(settings).penalties(ctx)
    return {p.name: p for p in found}


def defined(adapter: Lora, scaling: float):
    """Σ ‖s·BA ⊙ Σ_i s·B_iA_i‖²_F in float64, and its gradients by autograd: A, B, A, B, …"""
    leaves, value = [], 0.0
    for name, factors in adapter.factors().items():
        A, B = (p.detach().double().requires_grad_() for p in factors[:2])
        past = sum(u[name].B.double() @ u[name].A.double() for u in adapter.past)
        value = value + (scaling * (B @ A) * scaling * past).square().sum()
        leaves += [A, B]
    value.backward()
    return float(value.detach()), [p.grad for p in leaves]


def size(updates) -> float:
    """‖ΔW‖_F over all matrices."""
    squares = [(S * f.B.double() @ f.A.double()).square().sum() for f in updates.values()]
    return float(sum(squares).detach()) ** 0.5


def test_the_published_weight_is_that_of_products_without_the_scaling():
    adapter = third_stage()
    value, gradients = defined(adapter, scaling=1.0)
    term = penalties(adapter, ella_weight=3e4, ella_unit="sum")["ella"](Step(0, 10, {}))
    assert term.value == pytest.approx(3e4 * value, rel=1e-5)
    for (_, found), expected in zip(term.gradients, gradients, strict=True):
        torch.testing.assert_close(found.double(), 3e4 * expected, rtol=1e-3, atol=1e-7)


def test_a_relative_weight_is_the_ratio_of_gradients_once_the_update_is_as_large_as_earlier_ones():
    adapter, rho = third_stage(), 0.3
    made = penalties(adapter, ella_weight=rho)["ella"]
    task = {p: torch.full_like(p, 0.5) for p in adapter.trainable()}
    assert [made(Step(k, 10, task)) for k in range(4)] == [None] * 4  # the warm-up
    term = made(Step(4, 10, task))
    value, gradients = defined(adapter, S)
    g = 0.5 * sum(p.numel() for p in task) ** 0.5
    h = sum(float(x.square().sum()) for x in gradients) ** 0.5
    c = (size(adapter.past[0]) + size(adapter.past[1])) / 2 / size(adapter.factors())
    assert c > 2
    weight = made.notes()["lambda"]
    assert weight == pytest.approx(rho * g / (c * h), rel=1e-4)
    assert term.value == pytest.approx(weight * value, rel=1e-4)


def test_there_is_no_overlap_in_the_first_stage_or_with_weight_zero():
    first = Lora(tiny.model("llama"), RANK, ALPHA, 0.0)
    first.begin()
    assert penalties(first, index=1) == {}
    adapter = third_stage()
    assert penalties(adapter, ella_weight=0.0) == {}
    assert penalties(adapter, ella_weight=[1.0, 1.0, 0.0]) == {}
    assert penalties(adapter, penalty="l1", l1=0.1).keys() == {"l1", "ella"}


def test_the_rank_of_the_past_stays_below_that_of_the_matrix():
    adapter = Lora(tiny.model("multi-query"), RANK, ALPHA, 0.0)  # v_proj gives 8 values
    for number in range(5):
        torch.manual_seed(number)
        adapter.begin()
        with torch.no_grad():
            for factors in adapter.factors().values():
                factors.B.normal_()
    made = penalties(adapter, ella_weight=1.0, ella_unit="sum")["ella"]
    ranks = [f.A.shape[0] for f in made.past]
    assert sorted(set(ranks)) == [8, 12]
    assert made(Step(0, 10, {})).value == pytest.approx(defined(adapter, 1.0)[0], rel=1e-4)


def test_a_negative_weight_is_one_clear_line():
    with pytest.raises(NloraError, match="setting 'ella_weight': must be a number of at least 0"):
        method("ella").build({"ella_weight": -1.0})


def test_weight_zero_equals_inc_lora_bit_for_bit_and_training_avoids_what_is_there(llama, tmp_path):
    settings = {"epochs": 6, "learning_rate": 1e-2, "rank": 2, "tasks": TASKS[:2], "count": 16}
    learn(llama, tmp_path / "inc", "inc-lora", **settings)
    learn(llama, tmp_path / "zero", "ella", ella_weight=0.0, **settings)
    learn(llama, tmp_path / "ella", "ella", ella_weight=3.0, **settings)
    assert same_bits(tmp_path / "zero", tmp_path / "inc")

    def overlap(out) -> float:
        """Cosine-like share of the second update's energy where the first one is large."""
        one, two = (update(out, k) for k in (1, 2))
        top = bottom = 0.0
        for name in two:
            if "lora_A" in name:
                other = name.replace("lora_A", "lora_B")
                first, second = ((u[other] @ u[name]).square() for u in (one, two))
                top += float((first * second).sum() / first.mean())
                bottom += float(second.sum())
        return top / bottom

    assert overlap(tmp_path / "ella") < 0.6 * overlap(tmp_path / "inc")
    assert "ella" not in losses(tmp_path / "ella", 1)[0]
    notes = stages(tmp_path / "ella")[1].notes["ella"]
    assert notes["lambda"] > 0
    found = [step["ella"] for step in losses(tmp_path / "ella", 2)]
    assert found[:4] == [0.0] * 4
    assert min(found[4:]) > 0
