import pytest
import torch

from nlora.methods.context import Step
from tests.methods.helpers import TASKS, learn, losses, stages
from tests.methods.test_ella import penalties, third_stage


def test_the_term_is_the_sum_of_what_opposes_earlier_updates():
    adapter = third_stage()
    made = penalties(adapter, name="ps-lora", opposition_weight=0.3, penalty="none", l1=0)
    made = made["opposition"]
    value, leaves = 0.0, []
    for name, (A, B, s) in adapter.factors().items():
        A, B = (p.detach().double().requires_grad_() for p in (A, B))
        past = sum(u[name].scaling * u[name].B.double() @ u[name].A.double() for u in adapter.past)
        value = value + torch.relu(-(s * B @ A) * past.sign()).sum()
        leaves += [A, B]
    value.backward()
    task = {p: torch.ones_like(p) for p in adapter.trainable()}
    assert [made(Step(k, 10, task)) for k in range(4)] == [None] * 4  # the warm-up
    term = made(Step(4, 10, task))
    weight = made.notes()["lambda"]
    assert term.value == pytest.approx(weight * float(value.detach()), rel=1e-5)
    for (_, found), leaf in zip(term.gradients, leaves, strict=True):
        torch.testing.assert_close(found.double(), weight * leaf.grad, rtol=1e-3, atol=1e-6)


def test_it_acts_from_the_second_task_on(llama, tmp_path):
    settings = {"learning_rate": 1e-2, "rank": 2, "epochs": 4, "tasks": TASKS[:2]}
    learn(llama, tmp_path, "ps-lora", **settings)
    assert "opposition" not in losses(tmp_path, 1)[0]
    assert losses(tmp_path, 2)[-1]["opposition"] > 0
    assert stages(tmp_path)[1].notes["opposition"]["lambda"] > 0
    assert stages(tmp_path)[1].notes["l1"]["lambda"] > 0
