"""Greedy decoding of answers, and what came of it.

The published protocol decodes up to 50 tokens and compares normalised texts. Here examples of like
length share a batch, a row stops as soon as its text can no longer become a label, and what all
prompts begin with is read once; which answers are right does not change by that.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, StoppingCriteria, StoppingCriteriaList

from nlora.data.batches import SHORTEST_PREFIX, Collator, common_prefix
from nlora.data.encode import Encoder
from nlora.data.task import Example
from nlora.evaluation.normalise import Options, normalise
from nlora.models.inside import accepts, base_model, positions
from nlora.models.prefix import continuing, read_prefix, why_not, without_prefix


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model answered to one example."""

    text: str
    label: str

    @property
    def correct(self) -> bool:
        """Exact match after normalisation."""
        return normalise(self.text) == normalise(self.label)


def accuracy(predictions: Sequence[Prediction]) -> float:
    """Per cent of right answers."""
    return 100.0 * sum(p.correct for p in predictions) / len(predictions)


@torch.inference_mode()
def predict(
    model: Any,
    encoder: Encoder,
    examples: Sequence[Example],
    max_new_tokens: int = 50,
    batch_tokens: int = 2048,
    early_stop: bool = True,
    advance: Callable[[int], None] = lambda count: None,
) -> list[Prediction]:
    """The model's answers to the examples, in their order.

    `batch_tokens` bounds rows × longest row of a batch; `advance` is told the number of examples
    that are done. The model is put into evaluation mode.
    """
    model.eval()
    prompts = [encoder.prompt_ids(e.task, e.text)[0] for e in examples]
    decode = _decode_with_generate if why_not(model) else _decode_with_cache
    options = _options(examples) if early_stop else [None] * len(examples)
    texts = [""] * len(examples)
    for rows, found in decode(model, encoder, prompts, options, max_new_tokens, batch_tokens):
        for row, text in zip(rows, found, strict=True):
            texts[row] = text
        advance(len(rows))
    return [Prediction(text, e.label) for text, e in zip(texts, examples, strict=True)]


Decoded = Iterator[tuple[list[int], list[str]]]


def _decode_with_cache(
    model: Any,
    encoder: Encoder,
    prompts: Sequence[list[int]],
    options: Sequence[Options | None],
    max_new_tokens: int,
    batch_tokens: int,
) -> Decoded:
    """Decoder-only models with a plain cache: what all prompts begin with is read once, and a row
    leaves the batch as soon as it is done.
    """
    tokenizer = encoder.tokenizer
    collator = Collator(tokenizer.pad_token_id, encoder_decoder=False)
    shared = common_prefix(prompts)
    shared = shared if shared >= SHORTEST_PREFIX and len(prompts) > 1 else 0
    prefix = None
    if shared:
        ids = torch.tensor(prompts[0][:shared], device=model.device)
        prefix = read_prefix(model, ids, rows=1)
    for rows in _batches([len(p) - shared for p in prompts], batch_tokens):
        batch = collator.prompts([prompts[i] for i in rows])
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        cache = DynamicCache(config=base_model(model).config)
        if prefix is not None:
            cache = deepcopy(prefix)
            cache.batch_repeat_interleave(len(rows))
        ids = _continue(
            model, batch, shared, cache, tokenizer, [options[i] for i in rows], max_new_tokens
        )
        yield rows, [_text(tokenizer, row) for row in ids]


def _continue(
    model: Any,
    batch: dict[str, Tensor],
    shared: int,
    cache: DynamicCache,
    tokenizer: Any,
    options: list[Options | None],
    max_new_tokens: int,
) -> list[list[int]]:
    """The new ids of each row of a left-padded batch whose first tokens are in the cache."""
    kind = type(base_model(model))
    last = {"logits_to_keep": 1} if accepts(kind, "logits_to_keep") else {}
    inputs = {**batch, "position_ids": positions(batch["attention_mask"])}
    if shared:
        inputs = without_prefix(inputs, shared)
    place = inputs["position_ids"][:, -1:]
    new: list[list[int]] = [[] for _ in options]
    alive = list(range(len(options)))
    for step in range(max_new_tokens):
        if not accepts(kind, "position_ids"):
            inputs.pop("position_ids")
        out = model(**inputs, **last, **continuing(model, cache))
        chosen = out.logits[:, -1].argmax(-1)
        going = []
        for position, (row, token) in enumerate(zip(alive, chosen.tolist(), strict=True)):
            if token != tokenizer.eos_token_id:
                new[row].append(token)
                allowed = options[row]
                if allowed is None or allowed.reachable(_text(tokenizer, new[row])):
                    going.append(position)
        if not going or step + 1 == max_new_tokens:
            break
        mask, place = inputs["attention_mask"], place + 1
        if len(going) < len(alive):
            keep = torch.tensor(going, device=chosen.device)
            cache.batch_select_indices(keep)
            chosen, mask, place = chosen[keep], mask[keep], place[keep]
            alive = [alive[position] for position in going]
        inputs = {
            "input_ids": chosen[:, None],
            "attention_mask": torch.nn.functional.pad(mask, (0, 1), value=1),
            "position_ids": place,
        }
    return new


def _decode_with_generate(
    model: Any,
    encoder: Encoder,
    prompts: Sequence[list[int]],
    options: Sequence[Options | None],
    max_new_tokens: int,
    batch_tokens: int,
) -> Decoded:
    """All other models, through their own `generate`, which stops when no row is left."""
    tokenizer = encoder.tokenizer
    collator = Collator(tokenizer.pad_token_id, encoder.encoder_decoder)
    for rows in _batches([len(p) for p in prompts], batch_tokens):
        batch = collator.prompts([prompts[i] for i in rows])
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        out = model.generate(
            **batch,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            use_cache=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            stopping_criteria=StoppingCriteriaList(
                [_HopelessRows(tokenizer, [options[i] for i in rows])]
            ),
        )
        new = out if encoder.encoder_decoder else out[:, batch["input_ids"].shape[1] :]
        yield rows, [_text(tokenizer, row) for row in new]


class _HopelessRows(StoppingCriteria):
    """Stops each row whose text can no longer become one of its labels."""

    def __init__(self, tokenizer: Any, options: Sequence[Options | None]) -> None:
        self.tokenizer = tokenizer
        self.options = options
        self.start: int | None = None

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]
        if self.start is None:
            self.start = input_ids.shape[1] - 1  # the first call follows the first new token
        stop = [
            allowed is not None and not allowed.reachable(_text(self.tokenizer, row))
            for allowed, row in zip(self.options, input_ids[:, self.start :], strict=True)
        ]
        return torch.tensor(stop, device=input_ids.device)


def _text(tokenizer: Any, ids: Any) -> str:
    """The text of ids, without special tokens and without tidying of spaces."""
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def _options(examples: Sequence[Example]) -> list[Options | None]:
    known: dict[tuple[str, ...], Options] = {}
    return [
        None if e.task.labels is None else known.setdefault(e.task.labels, Options(e.task.labels))
        for e in examples
    ]


def _batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Indices of examples by length, the longest first, as many in a batch as the budget allows."""
    batches: list[list[int]] = []
    widest = 0
    for i in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if not batches or (len(batches[-1]) + 1) * widest > batch_tokens:
            batches.append([])
            widest = max(lengths[i], 1)
        batches[-1].append(i)
    return batches
