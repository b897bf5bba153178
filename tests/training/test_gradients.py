from functools import cache

import pytest
import torch
from torch.nn.functional import cross_entropy

from nlora.adapters.lora import Lora
from nlora.data.batches import Collator, TrainingOrder
from nlora.fast.logits import answer_logits
from nlora.methods.registry import method
from tests import tiny
from tests.loop import encode, train_stage

CLIP, RATE, BATCH, EPOCHS = 0.2, 0.5, 8, 2
SETTINGS = {
    "learning_rate": RATE,
    "optimizer": "sgd",
    "max_grad_norm": CLIP,
    "batch_size": BATCH,
    "epochs": EPOCHS,
}
L1, OVERLAP = 2e-3, 0.05


def second_stage(shape: str) -> Lora:
    """An adapter in its second stage that has moved already, so that no penalty is flat."""
    adapter = Lora(tiny.model(shape), rank=4, alpha=8.0, dropout=0.0)
    torch.manual_seed(0)
    for _ in range(2):
        adapter.begin()
        with torch.no_grad():
            for factors in adapter.factors().values():
                factors.B.normal_(std=0.05)
    return adapter


@cache
def plain_loop(shape: str, l1: float, overlap: float) -> tuple[Lora, list[float]]:
    """SGD with both penalties in the loss; the gradient's norm before clipping at each step."""
    adapter, examples = second_stage(shape), encode(shape, tiny.task(count=21))
    collate, order = Collator(0, shape in tiny.ENCODER_DECODER), TrainingOrder(examples, BATCH, 1)
    optimiser = torch.optim.SGD(adapter.trainable(), lr=RATE)
    norms = []
    adapter.model.train()
    for epoch in range(EPOCHS):
        order.set_epoch(epoch)
        rows = [examples[i] for i in order]
        for start in range(0, len(rows), BATCH):
            logits, targets = answer_logits(adapter.model, collate(rows[start : start + BATCH]))
            loss = cross_entropy(logits, targets)
            for name, (A, B, scaling) in adapter.factors().items():
                loss = loss + l1 * (scaling * (B @ A)).abs().sum()
                loss = loss + overlap * (adapter.past[0][name].A @ A.T).abs().sum()
            optimiser.zero_grad()
            loss.backward()
            norms.append(float(torch.nn.utils.clip_grad_norm_(adapter.trainable(), CLIP)))
            optimiser.step()
    return adapter, norms


def furthest(one: Lora, other: Lora) -> float:
    pairs = zip(one.trainable(), other.trainable(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


@pytest.mark.parametrize("accumulation", [1, 2, 4])
@pytest.mark.parametrize("shape", ["llama", "grouped-query", "t5"])
def test_a_penalty_trains_as_if_it_stood_in_the_loss_before_clipping(shape, accumulation):
    expected, norms = plain_loop(shape, L1, OVERLAP)
    assert min(norms) > CLIP  # clipping is active at every step
    assert furthest(expected, plain_loop(shape, 0.0, 0.0)[0]) > 1e-2
    adapter = second_stage(shape)
    built = method("o-lora").build(
        {"penalty": "l1", "l1": L1, "l1_unit": "sum", "orthogonality_weight": OVERLAP}
    )
    train_stage(shape, adapter, built, tiny.task(count=21), accumulation=accumulation, **SETTINGS)
    assert furthest(adapter, expected) < 1e-5


@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_without_a_penalty_the_loop_is_the_plain_one_too(shape):
    expected, _ = plain_loop(shape, 0.0, 0.0)
    adapter = second_stage(shape)
    train_stage(shape, adapter, method("inc-lora").build({}), tiny.task(count=21), **SETTINGS)
    assert furthest(adapter, expected) < 1e-5


def test_gradients_are_not_clipped_where_no_bound_is_set():
    adapter, clipped = second_stage("llama"), second_stage("llama")
    built = method("n-lora").build({"l1": L1, "l1_unit": "sum"})
    train_stage("llama", adapter, built, tiny.task(count=8), **{**SETTINGS, "max_grad_norm": 0})
    train_stage("llama", clipped, built, tiny.task(count=8), **SETTINGS)
    assert furthest(adapter, second_stage("llama")) > furthest(clipped, second_stage("llama"))
