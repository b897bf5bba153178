"""bf16 is for training steps alone, and of runs that ask for it."""

import torch

from nlora.adapters.full import Full
from nlora.methods.registry import method
from tests import tiny
from tests.loop import train_stage


def test_after_a_stage_in_bf16_the_model_computes_in_fp32_again():
    adapter = Full(tiny.model("llama"))
    adapter.begin()
    train_stage("llama", adapter, method("seq-ft").build({}), tiny.task(count=8), precision="bf16")
    same = tiny.model("llama")
    same.load_state_dict(adapter.model.state_dict())
    ids = torch.tensor([[5, 6, 7, 8]])
    found, expected = adapter.model(input_ids=ids).logits, same(input_ids=ids).logits
    assert torch.equal(found, expected)


def test_a_run_trains_in_its_own_precision_whatever_accelerate_was_told(monkeypatch):
    found = []
    for told in ("no", "bf16"):
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", told)
        adapter = Full(tiny.model("llama"))
        adapter.begin()
        losses, _ = train_stage(
            "llama", adapter, method("seq-ft").build({}), tiny.task(count=8), precision="fp32"
        )
        found.append(losses)
    assert found[0] == found[1]
