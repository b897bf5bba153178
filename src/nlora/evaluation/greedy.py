"""Greedy decoding of texts that are expected to become a label.

The published protocol decodes up to 50 tokens and compares normalised texts. Here prompts of like
length share a batch, and a row stops as soon as its text can no longer become a label; which
answers are right does not change by that.

Decoder-only models with a plain cache read what all prompts begin with once. While an answer is the
beginning of a label, the rest of that label is read along as a draft, and what greedy decoding says
at each of its tokens tells how much of it stands (speculative decoding): a trained model's answers
take two passes however long they are. A row leaves the batch when it is done. All other models are
decoded by their own `generate`.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from nlora import processes
from nlora.backbones.structure import accepts, base_model, end_tokens
from nlora.data.batches import Collator, by_budget, on_device, pad
from nlora.data.encode import Encoder
from nlora.evaluation.expected import Expected
from nlora.evaluation.reading import EncoderRead, Read, encoded, read
from nlora.fast.prefix import continuing, has_cache, why_not

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
    seen: Callable[[Any], object] | None = None,
) -> Decoded:
    """The texts that follow the prompts, at most `max_new_tokens` long.

    A text ends at an end token of the model or its tokenizer, or one of `ends`. `batch_tokens`
    bounds rows × longest row. Of several processes each decodes its share of the batches that a
    single one would decode. `seen` is called with each batch that was read before it is decoded: a
    `Read` of a decoder-only model with a plain cache, an `EncoderRead` of an encoder-decoder model;
    no other model can have it.
    """
    decoder = _by_generate if why_not(model) else _by_cache
    ends = [*end_tokens(model, encoder.tokenizer), *ends]
    return decoder(model, encoder, prompts, expected, max_new_tokens, batch_tokens, ends, seen)


def _by_cache(
    model: Any,
    encoder: Encoder,
    prompts: Sequence[list[int]],
    expected: Sequence[Expected],
    max_new_tokens: int,
    batch_tokens: int,
    ends: Sequence[int],
    seen: Callable[[Read], object] | None,
) -> Decoded:
    for batch in read(model, encoder, prompts, batch_tokens):
        if seen is not None:
            seen(batch)
        hoped = [expected[i] for i in batch.rows]
        yield batch.rows, _Decoding(model, encoder, batch, hoped, max_new_tokens, ends).run()


class _Decoding:
    """One batch. Rows are numbered as they came; `alive` are those still in it, in order."""

    def __init__(
        self,
        model: Any,
        encoder: Encoder,
        batch: Read,
        expected: Sequence[Expected],
        max_new_tokens: int,
        ends: Sequence[int],
    ) -> None:
        self.model = model
        self.encoder = encoder
        self.cache = batch.cache
        self.first = batch.logits
        self.expected = expected
        self.max_new_tokens = max_new_tokens
        self.ends = set(ends)
        self.new: list[list[int]] = [[] for _ in expected]
        self.alive = list(range(len(expected)))
        self.mask = batch.inputs["attention_mask"]
        """Which positions of the cache count, (alive, S)."""
        self.place = batch.inputs["position_ids"][:, -1:]
        """The position of each row's last token that was read, (alive, 1)."""

    def run(self) -> list[str]:
        """The texts that follow the prompts."""
        self._take(self.first.argmax(-1).tolist(), [[] for _ in self.alive], read=0)
        while self.alive:
            drafts = [self.expected[row].draft(self.new[row]) for row in self.alive]
            blocks = [
                [self.new[row][-1], *draft] for row, draft in zip(self.alive, drafts, strict=True)
            ]
            ids = pad(blocks, self.encoder.tokenizer.pad_token_id, left=False).to(self.mask)
            self.mask = torch.nn.functional.pad(self.mask, (0, ids.shape[1]), value=1)
            ahead = torch.arange(1, ids.shape[1] + 1, device=ids.device)
            self._take(self._read(ids, self.place + ahead), drafts, read=ids.shape[1])
        return [self.encoder.text(ids).strip() for ids in self.new]

    def _read(self, ids: Tensor, places: Tensor) -> list[list[int]]:
        """What greedy decoding says after each token of `ids`, (alive, N)."""
        kind = type(base_model(self.model))
        more = {"position_ids": places} if accepts(kind, "position_ids") else {}
        going_on = continuing(self.model, self.cache)
        logits = self.model(input_ids=ids, attention_mask=self.mask, **more, **going_on).logits
        return logits.argmax(-1).tolist()

    def _take(self, says: list[list[int]], drafts: list[list[int]], read: int) -> None:
        """Add to every row what is said as far as its draft agrees; rows that are done leave.

        `read` positions of the cache are new; those of drafts that do not stand stop counting.
        """
        going, counts = [], []
        for position, (said, draft) in enumerate(zip(says, drafts, strict=True)):
            stands = next((i for i, token in enumerate(draft) if said[i] != token), len(draft))
            if self._add(self.alive[position], said[: stands + 1]):
                going.append(position)
                counts.append(stands + 1)
        if len(going) < len(self.alive):
            index = torch.tensor(going, dtype=torch.long, device=self.mask.device)
            self.cache.batch_select_indices(index)
            self.mask, self.place = self.mask[index], self.place[index]
            self.alive = [self.alive[position] for position in going]
        if read and going:
            count = torch.tensor(counts, device=self.mask.device)[:, None]
            order = torch.arange(read, device=self.mask.device)
            self.mask[:, -read:] = order < count
            self.place = self.place + count

    def _add(self, row: int, tokens: list[int]) -> bool:
        """Add tokens to a row until it is done; whether it goes on."""
        new = self.new[row]
        for token in tokens:
            if token in self.ends:
                return False
            new.append(token)
            reachable = self.expected[row].reachable(self.encoder.text(new))
            if not reachable or len(new) == self.max_new_tokens:
                return False
        return True


def _by_generate(
    model: Any,
    encoder: Encoder,
    prompts: Sequence[list[int]],
    expected: Sequence[Expected],
    max_new_tokens: int,
    batch_tokens: int,
    ends: Sequence[int],
    seen: Callable[[EncoderRead], object] | None,
) -> Decoded:
    tokenizer = encoder.tokenizer
    for rows, inputs in _inputs(model, encoder, prompts, batch_tokens, seen):
        out = model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            use_cache=has_cache(base_model(model)),
            eos_token_id=list(dict.fromkeys(ends)),
            pad_token_id=tokenizer.pad_token_id,
            stopping_criteria=StoppingCriteriaList(
                [_HopelessRows(encoder, [expected[i] for i in rows])]
            ),
        )
        start = 1 if encoder.encoder_decoder else inputs["input_ids"].shape[1]
        yield rows, [encoder.text(until(row, ends)).strip() for row in out[:, start:].tolist()]


def _inputs(
    model: Any,
    encoder: Encoder,
    prompts: Sequence[list[int]],
    batch_tokens: int,
    seen: Callable[[EncoderRead], object] | None,
) -> Iterator[tuple[list[int], dict[str, Any]]]:
    """Batches for `generate`: prompts, or what the encoder made of those that somebody saw."""
    if seen is not None:
        for batch in encoded(model, encoder, prompts, batch_tokens):
            seen(batch)
            mask = batch.inputs["attention_mask"]
            yield batch.rows, {"encoder_outputs": batch.outputs, "attention_mask": mask}
        return
    collator = Collator(encoder.tokenizer.pad_token_id, encoder.encoder_decoder)
    for rows in processes.share_of_passes(by_budget([len(p) for p in prompts], batch_tokens)):
        yield rows, on_device(collator.prompts([prompts[i] for i in rows]), model.device)


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
