"""What a frozen model makes of a text, as one vector."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from nlora.backbones.structure import accepts, layers_of, positions


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run without dropout, and then go on in the mode that the model was in."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@torch.no_grad()
def lookup_factor(model: Any) -> float:
    """What a model multiplies embeddings by that it looks up, and not those that it is given.

    1 for most. Pegasus, Marian and MVP have such a factor; others that say one (Granite) multiply
    both, so it is tried on a few tokens.
    """
    reader = _reader(model)
    told = {getattr(reader, name, 1.0) for name in ("embed_scale", "embedding_multiplier")} - {1.0}
    if not told or model.device.type == "meta":
        return 1.0
    embed = model.get_input_embeddings()
    ids = torch.arange(3, device=model.device)[None] % len(embed.weight)
    with evaluating(model):
        looked_up = reader(input_ids=ids).last_hidden_state

        def off(factor: float) -> float:
            given = reader(input_ids=None, inputs_embeds=factor * embed(ids)).last_hidden_state
            return float((given - looked_up).abs().max())

        return min((1.0, *told), key=off)


@torch.no_grad()
def mean_state(
    model: Any,
    input_ids: Tensor,
    mask: Tensor,
    dtype: torch.dtype = torch.float32,
    layers: int | None = None,
) -> Tensor:
    """The mean of a Transformers model's last hidden states where the mask is set, (B, d).

    `input_ids` and `mask` are (B, S). An encoder-decoder model reads with its encoder. With
    `layers` it reads with so many of its first layers, and its final norm where there is one.
    """
    decoder_only = not model.config.is_encoder_decoder
    reader = _reader(model)
    inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": mask.long()}
    if decoder_only:
        inputs["use_cache"] = False
        if accepts(type(reader), "position_ids"):
            inputs["position_ids"] = positions(inputs["attention_mask"])
    with evaluating(model), first_layers(reader, layers):
        states = reader(**inputs).last_hidden_state
    return masked_mean(states, mask, dtype)


@contextmanager
def first_layers(reader: nn.Module, count: int | None) -> Iterator[None]:
    """Let a model have its first layers alone; all of them with None, or where it has no list."""
    found = None if count is None else layers_of(reader)
    if found is None:
        yield
        return
    holder, name = found
    whole: Any = getattr(holder, name)
    setattr(holder, name, whole[:count])
    try:
        yield
    finally:
        setattr(holder, name, whole)


def half_of_layers(model: Any) -> int | None:
    """How many layers are half of a model's (of its encoder's); None where it has no list."""
    found = layers_of(_reader(model))
    return None if found is None else max(round(len(getattr(*found)) / 2), 1)


def _reader(model: Any) -> Any:
    """What reads a text: the encoder, or all below the head."""
    return model.get_encoder() if model.config.is_encoder_decoder else _body(model)


def _body(model: Any) -> Any:
    """The model below its head; some (llama4) are called otherwise than their class says."""
    if model.base_model is not model:
        return model.base_model
    below = [part for part in model.children() if isinstance(part, PreTrainedModel)]
    return below[0] if len(below) == 1 else model


def masked_mean(vectors: Tensor, mask: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The mean (B, d), taken in `dtype`, of vectors (B, S, d) where the mask (B, S) is set."""
    weight = mask[..., None].to(dtype)
    return (vectors.to(dtype) * weight).sum(1) / weight.sum(1).clamp(min=1)
