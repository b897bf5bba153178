import pytest
import torch

from nlora.adapters.full import Full
from nlora.adapters.lora import Lora
from nlora.methods.registry import method
from tests import tiny
from tests.loop import train_stage

DATA = tiny.task(count=21)  # the last step of an epoch is not full


def lora(shape):
    torch.manual_seed(0)
    adapter = Lora(tiny.model(shape), rank=4, alpha=8.0, dropout=0.0)
    adapter.begin()
    return adapter


def full(shape):
    adapter = Full(tiny.model(shape))
    adapter.begin()
    return adapter


@pytest.mark.parametrize("kind", [lora, full])
@pytest.mark.parametrize("shape", ["t5", "llama"])
def test_splitting_a_batch_changes_neither_loss_terms_nor_parameters(shape, kind):
    found = []
    for accumulation in (1, 2, 4):  # 8×1, 4×2 and 2×4 examples to an optimiser step
        adapter = kind(shape)
        built = method("n-lora" if kind is lora else "replay").build({})
        losses, penalties = train_stage(
            shape, adapter, built, DATA, accumulation=accumulation, epochs=2
        )
        assert len(losses) == 6
        assert len(penalties) == (kind is lora)
        found.append((losses, [p.detach().clone() for p in adapter.trainable()]))
    (losses, parameters), *others = found
    if kind is lora:
        assert losses[-1]["l1"] > 0  # the penalty is active
    for other, moved in others:
        for step, expected in zip(other, losses, strict=True):
            terms = {k: v for k, v in expected.items() if k != "epoch"}
            assert {k: step[k] for k in terms} == pytest.approx(terms, rel=1e-5)
        for a, b in zip(moved, parameters, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
