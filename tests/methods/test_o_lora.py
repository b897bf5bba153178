from types import SimpleNamespace

import pytest
import torch

from nlora.carriers.lora import Lora
from nlora.methods.base import Stage, Step
from nlora.methods.registry import method
from tests import tiny
from tests.methods.helpers import learn, losses, same_bits, update

WEIGHT = 0.5


def third_stage(folder) -> tuple[Lora, Lora]:
    """An adapter with two before it, trained here and loaded from files."""
    live, folders = Lora(tiny.model("t5-v1.1"), 3, 6.0, 0.0), []
    for stage in (1, 2):
        torch.manual_seed(stage)
        live.begin()
        with torch.no_grad():
            for factors in live.factors().values():
                factors.B.normal_()
        folders.append(folder / str(stage))
        live.save(folders[-1])
    loaded = Lora(tiny.model("t5-v1.1"), 3, 6.0, 0.0)
    loaded.load(folders)
    for carrier in (live, loaded):
        torch.manual_seed(3)
        carrier.begin()
    return live, loaded


def penalties(carrier: Lora, index: int = 3, name: str = "o-lora", **settings):
    stage = Stage(index, "colour", (tiny.task(),), seed=1, steps=10)
    found = method(name).build(settings).penalties(SimpleNamespace(carrier=carrier), stage)
    return {p.name: p for p in found}


@pytest.mark.parametrize("form", ["entrywise", "squared"])
def test_the_new_input_space_is_compared_with_those_of_all_earlier_tasks(form, tmp_path):
    live, loaded = third_stage(tmp_path)
    for carrier in (live, loaded):
        total, leaves = 0.0, {}
        for name, factors in carrier.factors().items():
            leaves[factors.A] = factors.A.detach().clone().requires_grad_()
            for earlier in (0, 1):
                overlap = live.past[earlier][name].A @ leaves[factors.A].T
                total = total + (overlap.abs() if form == "entrywise" else overlap**2).sum()
        (WEIGHT * total).backward()
        term = penalties(carrier, orthogonality=form)["orthogonality"](Step(0, 10, {}))
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


def test_weight_zero_equals_inc_lora_bit_for_bit(llama, tmp_path):
    settings = {"epochs": 3, "dropout": 0.1, "learning_rate": 1e-2}
    learn(llama, tmp_path / "zero", "o-lora", orthogonality_weight=0.0, **settings)
    learn(llama, tmp_path / "inc", "inc-lora", **settings)
    learn(llama, tmp_path / "half", "o-lora", **settings)
    assert same_bits(tmp_path / "zero", tmp_path / "inc")
    assert not same_bits(tmp_path / "half", tmp_path / "inc")


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
