import pytest
import torch

from nlora.adapters.lora import Lora
from nlora.methods.context import Step
from nlora.methods.registry import method
from tests import tiny
from tests.loop import context, stage
from tests.methods.helpers import TASKS, learn, losses, same_bits, update

WEIGHT = 0.5


def third_stage(folder) -> tuple[Lora, Lora]:
    """An adapter with two before it, trained here and loaded from files."""
    live, folders = Lora(tiny.model("t5-v1.1"), 3, 6.0, 0.0), []
    for number in (1, 2):
        torch.manual_seed(number)
        live.begin()
        with torch.no_grad():
            for factors in live.factors().values():
                factors.B.normal_()
        folders.append(folder / str(number))
        live.save(folders[-1])
    loaded = Lora(tiny.model("t5-v1.1"), 3, 6.0, 0.0)
    loaded.load(folders)
    for adapter in (live, loaded):
        torch.manual_seed(3)
        adapter.begin()
    return live, loaded


def penalties(adapter: Lora, index: int = 3, name: str = "o-lora", **settings):
    ctx = context("llama", adapter, stage(index))
    found = method(name).build(settings).penalties(ctx)
    return {p.name: p for p in found}


@pytest.mark.parametrize("form", ["entrywise", "squared"])
def test_the_new_input_space_is_compared_with_those_of_all_earlier_tasks(form, tmp_path):
    live, loaded = third_stage(tmp_path)
    for adapter in (live, loaded):
        total, leaves = 0.0, {}
        for name, factors in adapter.factors().items():
            leaves[factors.A] = factors.A.detach().clone().requires_grad_()
            for earlier in (0, 1):
                overlap = live.past[earlier][name].A @ leaves[factors.A].T
                total = total + (overlap.abs() if form == "entrywise" else overlap**2).sum()
        (WEIGHT * total).backward()
        term = penalties(adapter, orthogonality=form)["orthogonality"](Step(0, 10, {}))
        assert term.value == pytest.approx(WEIGHT * float(total), rel=1e-5)
        found = dict(term.gradients)
        assert found.keys() == leaves.keys()
        for parameter, leaf in leaves.items():
            torch.testing.assert_close(found[parameter], leaf.grad)


def test_nothing_is_compared_in_the_first_stage_or_with_weight_zero(tmp_path):
    first = Lora(tiny.model("llama"), 3, 6.0, 0.0)
    first.begin()
    assert penalties(first, index=1) == {}
    live, _ = third_stage(tmp_path)
    assert penalties(live, orthogonality_weight=0.0) == {}
    assert penalties(live, orthogonality_weight=[1.0, 1.0, 0.0]) == {}
    assert penalties(live).keys() == {"orthogonality"}


def test_the_published_second_weight_is_that_of_the_new_factors_norms(tmp_path):
    live, _ = third_stage(tmp_path)
    found = penalties(live, norm_weight=[0.0, 0.0, 0.1])
    term = found["norms"](Step(0, 10, {}))
    expected = sum(float(p.detach().norm()) for f in live.factors().values() for p in (f.A, f.B))
    assert term.value == pytest.approx(0.1 * expected, rel=1e-5)
    assert len(term.gradients) == 2 * len(live.factors())


def test_the_l1_penalty_is_an_option_beside_it(tmp_path):
    live, _ = third_stage(tmp_path)
    assert penalties(live, name="o-lora+n-lora").keys() == {"orthogonality", "l1"}


def test_weight_zero_equals_inc_lora_bit_for_bit(learned):
    settings = {"epochs": 3, "dropout": 0.1, "learning_rate": 1e-2, "count": 16}
    plain = learned("llama", "inc-lora", TASKS[:2], **settings)
    zero = learned("llama", "o-lora", TASKS[:2], orthogonality_weight=0.0, **settings)
    assert same_bits(zero, plain)
    assert not same_bits(learned("llama", "o-lora", TASKS[:2], **settings), plain)


def test_training_makes_the_new_input_space_orthogonal_to_the_earlier_ones(llama, tmp_path):
    learn(llama, tmp_path, "o-lora", count=24, epochs=12, learning_rate=1e-2, rank=2)
    terms = [[step.get("orthogonality") for step in losses(tmp_path, k)] for k in (1, 2, 3)]
    assert set(terms[0]) == {None}
    for later in terms[1:]:
        assert 0 < later[-1] < 0.2 * later[0]
    one, two, three = (update(tmp_path, k) for k in (1, 2, 3))
    rest = sum(
        float((earlier[name] @ three[name].T).abs().sum())
        for earlier in (one, two)
        for name in three
        if "lora_A" in name
    )
    assert rest == pytest.approx(terms[2][-1] / WEIGHT, rel=0.5)
