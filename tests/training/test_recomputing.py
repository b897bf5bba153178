"""Gradient checkpointing computes activations twice, and the numbers are the same."""

import pytest
import torch
from transformers import LlamaForCausalLM, T5ForConditionalGeneration

from tests.methods.helpers import TASKS, learn, losses, update

CLASSES = {"llama_of_two": LlamaForCausalLM, "t5_of_two": T5ForConditionalGeneration}


@pytest.mark.parametrize(
    ("shape", "method"),
    [("llama_of_two", "n-lora"), ("t5_of_two", "n-lora"), ("t5_of_two", "seq-ft")],
)
def test_losses_and_updates_are_those_of_a_run_without(shape, method, request, tmp_path, patched):
    settings = {"optimizer": "sgd", "learning_rate": 0.1, "shared_prefix": "off"}
    settings |= {"l1": 1e-4} if method == "n-lora" else {}
    recomputed = patched(CLASSES[shape])
    for on in (True, False):
        out = tmp_path / str(on)
        model = request.getfixturevalue(shape)
        learn(model, out, method, TASKS[:2], gradient_checkpointing=on, **settings)
    assert len(recomputed) == 2  # stages
    for stage in (1, 2):
        found, expected = (losses(tmp_path / str(on), stage) for on in (True, False))
        for step, other in zip(found, expected, strict=True):
            assert step == pytest.approx(other, rel=1e-5, abs=1e-7)
        found, expected = (update(tmp_path / str(on), stage) for on in (True, False))
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-6)


@pytest.fixture
def patched(monkeypatch):
    """`patched(kind)` lists how often models of a class are told to compute activations twice."""

    def patch(kind):
        asked = []
        original = kind.activation_checkpointing_enable
        monkeypatch.setattr(
            kind,
            "activation_checkpointing_enable",
            lambda self, **how: [asked.append(how), original(self, **how)],
        )
        return asked

    return patch
