"""Greedy decoding of texts that are expected to become a label.

The published protocol decodes up to 50 tokens and compares normalised texts. Here prompts of like
length share a batch, and a row stops as soon as its text can no longer become a label; which
answers are right does not change by that.

Decoder-only models with a plain cache read what all prompts begin with once, and of T5's kind the
encoder reads each prompt once; their answers are drafted (`evaluation.drafts`). All other models
are decoded by their own `generate`.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from nlora import processes
from nlora.backbones.structure import PLAIN, base_model, end_tokens
from nlora.data.batches import Collator, by_budget, on_device
from nlora.data.encode import Encoder
from nlora.evaluation.drafts import AfterEncoder, AfterPrompt
from nlora.evaluation.expected import Expected
from nlora.evaluation.reading import encoded, has_encoder, read
from nlora.fast.prefix import has_cache, why_not

Decoded = Iterator[tuple[list[int], list[str]]]
"""Indices of prompts and the texts that follow them, batch by batch."""


def decode(
    model: Any,
    encoder: Encoder,
    prompts: Sequence[list[int]],
    expected: Sequence[Expected],
    max_new_tokens: int,
    batch_tokens: int,
    ends: Collection[int] = (),
    seen: Callable[[Any], object] = lambda batch: None,
) -> Decoded:
    """The texts that follow the prompts, at most `max_new_tokens` long.

    A text ends at an end token of the model or its tokenizer, or one of `ends`. `batch_tokens`
    bounds rows × longest row. Of several processes each decodes its share of the batches that a
    single one would decode. `seen` is called with each batch that was read before it is decoded: a
    `Read` of a decoder-only model with a plain cache, an `EncoderRead` of a model of T5's kind; for
    no other model is it called.
    """
    ends = [*end_tokens(model, encoder.tokenizer), *ends]
    rest = (max_new_tokens, ends)
    if has_encoder(model):
        for batch in encoded(model, encoder, prompts, batch_tokens):
            seen(batch)
            hoped = [expected[i] for i in batch.rows]
            yield batch.rows, AfterEncoder(model, encoder, batch, hoped, *rest).run()
    elif not why_not(model):
        for batch in read(model, encoder, prompts, batch_tokens):
            seen(batch)
            hoped = [expected[i] for i in batch.rows]
            yield batch.rows, AfterPrompt(model, encoder, batch, hoped, *rest).run()
    else:
        yield from _by_generate(model, encoder, prompts, expected, batch_tokens, *rest)


def _by_generate(
    model: Any,
    encoder: Encoder,
    prompts: Sequence[list[int]],
    expected: Sequence[Expected],
    batch_tokens: int,
    max_new_tokens: int,
    ends: Sequence[int],
) -> Decoded:
    collator = Collator(encoder.tokenizer.pad_token_id, encoder.encoder_decoder)
    for rows in processes.share_of_passes(by_budget([len(p) for p in prompts], batch_tokens)):
        inputs = on_device(collator.prompts([prompts[i] for i in rows]), model.device)
        out = model.generate(
            **inputs,
            **PLAIN,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            use_cache=has_cache(base_model(model)),
            eos_token_id=list(dict.fromkeys(ends)),
            pad_token_id=encoder.tokenizer.pad_token_id,
            stopping_criteria=StoppingCriteriaList(
                [_HopelessRows(encoder, [expected[i] for i in rows])]
            ),
        )
        start = 1 if encoder.encoder_decoder else inputs["input_ids"].shape[1]
        yield rows, [encoder.text(until(row, ends)).strip() for row in out[:, start:].tolist()]


def until(ids: list[int], ends: Sequence[int]) -> list[int]:
    """The ids before the first end token, which the tokenizer may not know as a special one."""
    return ids[: next((i for i, token in enumerate(ids) if token in ends), len(ids))]


class _HopelessRows(StoppingCriteria):
    """Stops each row whose text can no longer become one of its labels."""

    def __init__(self, encoder: Encoder, expected: Sequence[Expected]) -> None:
        self.encoder = encoder
        self.expected = expected
        self.start: int | None = None

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]
        if self.start is None:
            self.start = input_ids.shape[1] - 1  # the first call follows the first new token
        stop = [
            not expected.reachable(self.encoder.text(row))
            for expected, row in zip(self.expected, input_ids[:, self.start :], strict=True)
        ]
        return torch.tensor(stop, device=input_ids.device)
