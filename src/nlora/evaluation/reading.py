"""Prompts that a model has read, batch by batch, before anything is said to follow them.

Decoder-only models with a plain cache read what all prompts begin with once. Of T5's kind it is the
encoder that reads; the decoder has read its start token then, which fills its cache.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, EncoderDecoderCache

from nlora import processes
from nlora.backbones.structure import accepts, base_model, positions, wrappers
from nlora.data.batches import SHORTEST_PREFIX, Collator, by_budget, common_prefix, on_device
from nlora.data.encode import Encoder
from nlora.fast.prefix import continuing, read_prefix, why_not, without_prefix


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
    """A batch of prompts that an encoder has read, and after which the decoder has begun."""

    rows: list[int]
    mask: Tensor
    """Which tokens of the prompts count, padded on the right, (rows, S)."""
    states: Tensor
    """Of the encoder, (rows, S, width)."""
    cache: EncoderDecoderCache
    """Of the decoder: the encoder's keys and values, and those of the start token."""
    logits: Tensor
    """After the start token, (rows, 1, vocabulary)."""

    def follow(self, model: Any, ids: Tensor) -> Tensor:
        """Logits after each token of `ids` (rows, T), read behind what the cache holds; they join
        it."""
        return model(
            encoder_outputs=(self.states,),
            attention_mask=self.mask,
            decoder_input_ids=ids,
            past_key_values=self.cache,
            use_cache=True,
        ).logits

    def of(self, index: Tensor) -> "EncoderRead":
        """Some of the rows, in a cache of their own."""
        cache = EncoderDecoderCache(
            of_rows(self.cache.self_attention_cache, index),
            of_rows(self.cache.cross_attention_cache, index),
        )
        rows = [self.rows[i] for i in index.tolist()]
        return EncoderRead(rows, self.mask[index], self.states[index], cache, self.logits[index])


def read(
    model: Any, encoder: Encoder, prompts: Sequence[list[int]], batch_tokens: int
) -> Iterator[Read]:
    """The prompts as a decoder-only model with a plain cache reads them.

    `batch_tokens` bounds rows × longest row. Each process gets its share of the batches that a
    single one would get.
    """
    base = base_model(model)
    collator = Collator(encoder.tokenizer.pad_token_id, encoder_decoder=False)
    shared = 0 if why_not(model) else common_prefix(prompts)
    shared = shared if shared >= SHORTEST_PREFIX and len(prompts) > 1 else 0
    prefix = None
    if shared:
        prefix = read_prefix(model, torch.tensor([prompts[0][:shared]], device=model.device))
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
            seen = torch.ones(len(rows), shared, dtype=torch.long, device=model.device)
            inputs = without_prefix(inputs, torch.tensor(shared, device=model.device), seen)
        more: dict[str, Any] = dict(inputs)
        if not accepts(type(base), "position_ids"):
            del more["position_ids"]
        if accepts(type(base), "logits_to_keep"):
            # An index: a slice of the states would make `matmul` copy the vocabulary for each row.
            last = inputs["input_ids"].shape[1] - 1
            more["logits_to_keep"] = torch.tensor([last], device=model.device)
        logits = model(**more, **continuing(model, cache)).logits[:, -1:]
        yield Read(rows, inputs, cache, logits)


def narrowed(model: Any, rows: slice) -> AbstractContextManager[None]:
    """Meanwhile what a model keeps of the texts that it has read last is of these rows alone."""
    kept = (getattr(wrapper, "narrowed", None) for wrapper in wrappers(model))
    return next((of(rows) for of in kept if of is not None), nullcontext())


def has_encoder(model: Any) -> bool:
    """Whether a model is of T5's kind: its encoder can read prompts once, whatever follows."""
    if any(getattr(wrapper, "prompted", False) for wrapper in wrappers(model)):
        return False
    return base_model(model).config.model_type in ("t5", "mt5", "umt5")


def encoded(
    model: Any, encoder: Encoder, prompts: Sequence[list[int]], batch_tokens: int
) -> Iterator[EncoderRead]:
    """Likewise the prompts as a model of T5's kind reads them."""
    base = base_model(model)
    collator = Collator(encoder.tokenizer.pad_token_id, encoder_decoder=True)
    for rows in processes.share_of_passes(by_budget([len(p) for p in prompts], batch_tokens)):
        inputs = on_device(collator.prompts([prompts[i] for i in rows]), model.device)
        mask = inputs["attention_mask"]
        start = mask.new_full((len(rows), 1), base.config.decoder_start_token_id)
        states = base.get_encoder()(**inputs).last_hidden_state
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        begun = EncoderRead(rows, mask, states, cache, states)
        yield replace(begun, logits=begun.follow(model, start))


def of_rows(cache: Cache, index: Tensor | slice) -> DynamicCache:
    """What a cache holds of some rows, in a cache of its own."""
    found = DynamicCache()
    for number, layer in enumerate(cache.layers):
        found.update(layer.keys[index], layer.values[index], number)  # type: ignore[index]
    return found
