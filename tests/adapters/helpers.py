"""What the adapters' tests share: a batch, the logits on it, and a stand-in for training."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from nlora.data.batches import Collator
from nlora.data.encode import Encoded
from nlora.fast.logits import answer_logits
from tests.tiny import ENCODER_DECODER

ROWS = (
    Encoded([11, 12, 13, 14, 15], [21, 22, 1], False),
    Encoded([31, 32], [41, 1], False),
)


def batch(shape: str) -> dict[str, Tensor]:
    """Two examples of different lengths, padded as the shape wants it."""
    return Collator(0, shape in ENCODER_DECODER)(ROWS)


def logits(model: Any, shape: str) -> Tensor:
    """The model's logits at the answers, as evaluation would see them."""
    with torch.no_grad():
        return answer_logits(model.eval(), batch(shape)).logits


def train(adapter: Any, seed: int, size: float = 0.1) -> None:
    """As if a stage had been trained: every trainable parameter has moved, the same for a seed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter.trainable():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(size * noise.to(parameter.dtype))


@contextmanager
def seen(adapter: Any) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """What reaches the model inside a prompt adapter: embeddings and mask, a pair per call."""
    calls: list[tuple[Tensor, Tensor]] = []

    def hook(module: Any, args: Any, kwargs: Any) -> None:
        if kwargs.get("inputs_embeds") is not None:
            calls.append((kwargs["inputs_embeds"].detach(), kwargs["attention_mask"]))

    inside = adapter.model.model
    reader = inside.encoder if inside.config.is_encoder_decoder else inside
    handle = reader.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


def teaching_leaves_gradients_alone(adapter: Any) -> bool:
    """Whether `previous` may be asked for while a backward pass is in flight."""

    def gradients(teacher: bool) -> list[Tensor]:
        adapter.model.zero_grad()
        loss = answer_logits(adapter.model, batch("llama")).logits.square().mean()
        if teacher:
            with torch.no_grad(), adapter.previous():
                answer_logits(adapter.model, batch("llama"))
        loss.backward()
        return [p.grad.clone() for p in adapter.trainable()]

    pairs = zip(gradients(True), gradients(False), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)
