"""Greedy decoding of answers, and what came of it.

The published protocol decodes up to 50 tokens and compares normalised texts. Here examples of like
length share a batch, and a row stops as soon as its text can no longer become a label; which
answers are right does not change by that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from nlora.data.batches import Collator
from nlora.data.encode import Encoder
from nlora.data.task import Example
from nlora.evaluation.normalise import Options, normalise


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


class _HopelessRows(StoppingCriteria):
    """Stops each row whose text can no longer become one of its labels."""

    def __init__(self, tokenizer: Any, options: Sequence[Options | None]) -> None:
        self.tokenizer = tokenizer
        self.options = options
        self.start: int | None = None

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]
        if self.start is None:
            self.start = input_ids.shape[1] - 1  # the first call follows the first new token
        texts = detokenise(self.tokenizer, input_ids[:, self.start :])
        stop = [
            allowed is not None and not allowed.reachable(text)
            for allowed, text in zip(self.options, texts, strict=True)
        ]
        return torch.tensor(stop, device=input_ids.device)


def detokenise(tokenizer: Any, ids: Tensor) -> list[str]:
    """Texts of rows of ids, without special tokens and without tidying of spaces."""
    return tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


@torch.inference_mode()
def predict(
    model: Any,
    encoder: Encoder,
    examples: Sequence[Example],
    max_new_tokens: int = 50,
    batch_tokens: int = 4096,
    early_stop: bool = True,
    advance: Callable[[int], None] = lambda count: None,
) -> list[Prediction]:
    """The model's answers to the examples, in their order.

    `batch_tokens` bounds rows × longest row of a batch; `advance` is told the number of examples
    that are done. The model is put into evaluation mode.
    """
    model.eval()
    tokenizer = encoder.tokenizer
    collator = Collator(tokenizer.pad_token_id, encoder.encoder_decoder)
    prompts = [encoder.prompt_ids(e.task, e.text)[0] for e in examples]
    options: dict[tuple[str, ...], Options] = {}
    texts = [""] * len(examples)
    for rows in _batches([len(p) for p in prompts], batch_tokens):
        batch = collator.prompts([prompts[i] for i in rows])
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        allowed: list[Options | None] = []
        for i in rows:
            labels = examples[i].task.labels
            allowed.append(None if labels is None else options.setdefault(labels, Options(labels)))
        stop = [_HopelessRows(tokenizer, allowed)] if early_stop else []
        out = model.generate(
            **batch,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            use_cache=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            stopping_criteria=StoppingCriteriaList(stop),
        )
        new = out if encoder.encoder_decoder else out[:, batch["input_ids"].shape[1] :]
        for i, text in zip(rows, detokenise(tokenizer, new), strict=True):
            texts[i] = text
        advance(len(rows))
    return [Prediction(text, e.label) for text, e in zip(texts, examples, strict=True)]


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
