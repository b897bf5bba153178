"""GORP, and where its update lives: factors, and whole changes by low-rank steps."""

import pytest
import torch

from nlora.adapters.lora_and_whole import LoraAndWhole
from nlora.adapters.settings import AdapterSettings
from nlora.errors import NloraError
from nlora.methods.context import Step
from nlora.methods.registry import method
from tests import tiny
from tests.adapters.helpers import logits
from tests.loop import context, encode, stage
from tests.methods.helpers import TASKS, first_stages, learn, same_bits, state, update

SETTINGS = {"learning_rate": 0.1, "optimizer": "sgd", "rank": 3, "epochs": 1, "turn_every": 2}
SETTINGS |= {"tasks": TASKS[:2], "core_rank": 3, "count": 24}


@pytest.fixture(scope="module")
def learned(llama, tmp_path_factory):
    out = tmp_path_factory.mktemp("gorp") / "out"
    learn(llama, out, "gorp", **SETTINGS)
    return out


def test_a_whole_gradient_is_brought_to_its_first_directions_and_its_step_back():
    torch.manual_seed(0)
    adapter = LoraAndWhole(tiny.model("llama"), AdapterSettings(rank=2, dropout=0.0), core_rank=3)
    adapter.begin()
    gorp = method("gorp").build({"core_rank": 3, "whole_scale": 0.5})
    ctx = context("llama", adapter, stage())
    [(_, batch)] = list(ctx.batches(encode("llama", tiny.task())[:4]))
    ctx.tokens, ctx.step = 4, Step(0, 10)
    gorp.loss(ctx, batch)["task"].backward()
    name, layer = next(iter(adapter.layers.items()))
    G = layer.whole.grad.double()  # ∂L/∂ΔW is ∂L/∂W
    layer.weight.requires_grad_(True)
    loss = gorp.loss(ctx, batch)["task"]
    torch.testing.assert_close(torch.autograd.grad(loss, layer.weight)[0].double(), G)
    basis = torch.linalg.qr(torch.randn(3, 1)).Q.T
    gorp.state.bases[f"{name}.core"] = basis
    core = adapter.cores()[name]
    given = gorp.gradients(ctx)[core].double()
    U, S, Vh = torch.linalg.svd(G)
    small = torch.diag(S[:3])  # Uᵀ·G·V
    outside = torch.eye(3, dtype=torch.double) - basis.double().T @ basis.double()
    # U and V are known up to signs, which the bases in use tell
    signs_left = torch.diag(layer.left.double().T @ U[:, :3]).sign()
    signs_right = torch.diag(Vh[:3] @ layer.right.double().T).sign()
    expected = outside @ (signs_left[:, None] * small * signs_right)
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-7)
    with torch.no_grad():
        core.copy_(-given)
    gorp.after_step(ctx)
    change = -0.5 * layer.left.double() @ given @ layer.right.double()
    torch.testing.assert_close(layer.whole.detach().double(), change, rtol=1e-4, atol=1e-7)
    assert not core.any()


def test_a_second_task_steps_outside_of_the_first_one_s_gradients(learned):
    one, two, kept = update(learned, 1), update(learned, 2), state(learned, 1)
    for name, basis in kept.items():
        matrix = name.removeprefix("bases.")
        if matrix.endswith(".core"):
            continue
        moved = (two[matrix] - one[matrix]).double()
        moved = moved if matrix.endswith(".A") else moved.T
        inside = moved @ basis.double().T
        assert float(inside.norm()) < 1e-4 * max(float(moved.norm()), 1e-3), matrix
    assert any(not two[n].equal(one[n]) for n in one if n.endswith(".D"))


def test_what_is_kept_explains_its_share_of_the_first_moment():
    gorp = method("gorp").build({"share": 0.9})
    moment = torch.diag(torch.tensor([3.0, 2.0, 1.0]))
    gorp.state.moments = {"m.A": moment}
    gorp.end(context("llama", None, stage()))
    assert gorp.state.bases["m.A"].abs().round().tolist() == [[1, 0, 0], [0, 1, 0]]  # 13 of 14


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(learned, llama, tmp_path):
    again = first_stages(learned, 1, tmp_path / "again")
    learn(llama, again, "gorp", **SETTINGS)
    assert same_bits(again, learned)


def test_both_changes_are_in_the_merged_weights():
    adapter = LoraAndWhole(tiny.model("llama"), AdapterSettings(rank=2, dropout=0.0))
    adapter.begin()
    with torch.no_grad():
        for layer, factors in zip(adapter.layers.values(), adapter.factors().values(), strict=True):
            layer.whole.normal_(std=0.1)
            factors.B.normal_()
    stood = logits(adapter.model, "llama")
    torch.testing.assert_close(logits(adapter.merged(), "llama"), stood, rtol=1e-4, atol=1e-4)


def test_a_start_that_takes_a_part_of_the_base_model_is_refused(llama, tmp_path):
    with pytest.raises(NloraError, match="does not keep what start=pissa takes"):
        learn(llama, tmp_path, "gorp", start="pissa")
