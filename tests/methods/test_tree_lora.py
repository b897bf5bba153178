"""TreeLoRA: the tree, the choice, and the term."""

import math

import pytest
import torch

from nlora.adapters.lora import Lora
from nlora.methods.context import Step
from nlora.methods.registry import method
from nlora.methods.tree_lora import bounds, grown
from tests import tiny
from tests.loop import context, encode, stage
from tests.methods.helpers import first_stages, learn, losses, same_bits, state

SETTINGS = {"learning_rate": 1e-2, "rank": 2, "epochs": 2, "count": 8, "compares": "gradients"}


@pytest.fixture(scope="module")
def learned(llama, tmp_path_factory):
    out = tmp_path_factory.mktemp("tree") / "out"
    learn(llama, out, "tree-lora", **SETTINGS)
    return out


def test_the_tree_splits_tasks_at_the_median_of_their_likeness():
    # the steps from task to task are (1, 0), (0, 1), (2, 0), (0, 3)
    rows = torch.tensor([[1.0, 0], [1, 1], [3, 1], [3, 4]])
    other = torch.tensor([[1.0], [1.0], [5.0], [5.0]])
    root = grown([rows, other], [0, 1, 2, 3])
    mean = torch.tensor([3 / 4, 1.0])
    likeness = [float(mean @ torch.tensor(s)) for s in ([1.0, 0], [0, 1.0], [2.0, 0], [0, 3.0])]
    assert root.similarity == sorted(likeness)[1]
    near, far = root.branches
    assert (near.tasks, far.tasks) == ([1, 2, 3], [0])
    assert [branch.tasks for branch in near.branches] == [[2], [1, 3]] or near.similarity == 0
    assert not far.branches


def test_what_is_near_or_seldom_drawn_is_preferred():
    drawn = torch.tensor([[2.0, 1.0], [1.0, 0.0]])
    distances = torch.tensor([[3.0, 4.0], [5.0, 0.0]])
    found = bounds(distances, drawn, step=3, steps=10)
    root = math.sqrt(math.log(2 * 10 * 4 * 5))
    plain = [
        [root / math.sqrt(2 * n + 1e-5) - (d / n if n else 0.0) for d, n in zip(*row, strict=True)]
        for row in zip(distances.tolist(), drawn.tolist(), strict=True)
    ]
    least = min(min(row) for row in plain)
    expected = torch.tensor([[value - least for value in row] for row in plain])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


def test_the_term_is_a_share_of_the_loss_and_turns_towards_what_was_drawn():
    adapter = Lora(tiny.model("llama"), 2, 4.0, 0.0)
    adapter.begin()
    tree = method("tree-lora").build({"tree_weight": 0.4})
    factors = {name: f.A for name, f in adapter.factors().items()}
    tree.state.weights = {n: torch.randn(1, A.numel()) for n, A in factors.items()}
    ctx = context("llama", adapter, stage(2))
    tree.begin(ctx)
    [(_, batch)] = list(ctx.batches(encode("llama", tiny.task())[:4]))
    ctx.tokens, ctx.step = 4, Step(5, 10)
    terms = tree.loss(ctx, batch)
    task = float(terms["task"].detach())
    kept = tree.state.weights
    aligned = sum((factors[n].detach().flatten() * kept[n][0]).sum() for n in factors)
    share = 0.4 * 5 / 10
    assert float(terms["alignment"].detach()) == pytest.approx(-share * task, rel=1e-4)
    given = torch.autograd.grad(terms["alignment"], list(factors.values()))
    for gradient, (name, A) in zip(given, factors.items(), strict=True):
        plain = -share * task / float(aligned) * kept[name][0].view_as(A)
        torch.testing.assert_close(gradient, plain, rtol=1e-3, atol=1e-6)
    tree.settings = tree.settings.model_copy(update={"tree_weight": 0.0})
    assert list(tree.loss(ctx, batch)) == ["task"]


def test_means_of_every_task_are_kept_and_the_term_acts_from_the_second_on(learned):
    kept = state(learned, 2)
    for kind in ("weights.", "gradients."):
        assert {len(rows) for name, rows in kept.items() if name.startswith(kind)} == {2}
    assert "alignment" not in losses(learned, 1)[0]
    assert losses(learned, 3)[-1]["alignment"] < 0


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(learned, llama, tmp_path):
    again = first_stages(learned, 2, tmp_path / "again")
    learn(llama, again, "tree-lora", **SETTINGS)
    assert same_bits(again, learned)
