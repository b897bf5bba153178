"""Prompts that a model has read, batch by batch, before anything is said to follow them.

Decoder-only models with a plain cache read what all prompts begin with once. Of T5's kind it is the
encoder that reads.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache

from nlora import processes
from nlora.backbones.structure import accepts, base_model, positions
from nlora.data.batches import SHORTEST_PREFIX, Collator, by_budget, common_prefix, on_device
from nlora.data.encode import Encoder
from nlora.fast.prefix import continuing, read_prefix, without_prefix


@dataclass(frozen=True)
class Read:
    """A batch of prompts that were read by a decoder-only model with a plain cache."""

    rows: list[int]
    """Which prompts these are."""
    inputs: dict[str, Tensor]
    """As they were read: padded on the left, without what the cache had already."""
    cache: DynamicCache
    logits: Tensor
    """After the last token of each, (rows, 1, vocabulary)."""


@dataclass(frozen=True)
class EncoderRead:
    """A batch of prompts that an encoder has read."""

    rows: list[int]
    inputs: dict[str, Tensor]
    """Padded on the right."""
    outputs: Any
    """The encoder's."""


def read(
    model: Any, encoder: Encoder, prompts: Sequence[list[int]], batch_tokens: int
) -> Iterator[Read]:
    """The prompts as a decoder-only model with a plain cache reads them.

    `batch_tokens` bounds rows × longest row. Each process gets its share of the batches that a
    single one would get.
    """
    base = base_model(model)
    collator = Collator(encoder.tokenizer.pad_token_id, encoder_decoder=False)
    shared = common_prefix(prompts)
    shared = shared if shared >= SHORTEST_PREFIX and len(prompts) > 1 else 0
    prefix = None
    if shared:
        ids = torch.tensor(prompts[0][:shared], device=model.device)
        prefix = read_prefix(model, ids, rows=1)
    for rows in processes.share_of_passes(
        by_budget([len(p) - shared for p in prompts], batch_tokens)
    ):
        inputs = collator.prompts([prompts[i] for i in rows])
        inputs = on_device(inputs, model.device)
        inputs["position_ids"] = positions(inputs["attention_mask"])
        cache = DynamicCache(config=base.config)
        if prefix is not None:
            cache = deepcopy(prefix)
            cache.batch_repeat_interleave(len(rows))
            inputs = without_prefix(inputs, shared)
        more: dict[str, Any] = dict(inputs)
        if not accepts(type(base), "position_ids"):
            del more["position_ids"]
        if accepts(type(base), "logits_to_keep"):
            # An index: a slice of the states would make `matmul` copy the vocabulary for each row.
            last = inputs["input_ids"].shape[1] - 1
            more["logits_to_keep"] = torch.tensor([last], device=model.device)
        logits = model(**more, **continuing(model, cache)).logits[:, -1:]
        yield Read(rows, inputs, cache, logits)


def encoded(
    model: Any, encoder: Encoder, prompts: Sequence[list[int]], batch_tokens: int
) -> Iterator[EncoderRead]:
    """Likewise the prompts as the encoder of an encoder-decoder model reads them."""
    collator = Collator(encoder.tokenizer.pad_token_id, encoder_decoder=True)
    for rows in processes.share_of_passes(by_budget([len(p) for p in prompts], batch_tokens)):
        inputs = on_device(collator.prompts([prompts[i] for i in rows]), model.device)
        yield EncoderRead(rows, inputs, base_model(model).get_encoder()(**inputs))


def of_rows(cache: Cache, index: Tensor | slice) -> DynamicCache:
    """What a cache holds of some rows, in a cache of its own."""
    found = DynamicCache()
    for number, layer in enumerate(cache.layers):
        found.update(layer.keys[index], layer.values[index], number)  # type: ignore[index]
    return found
