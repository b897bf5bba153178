"""Greedy decoding of answers, and what came of it.

The published protocol decodes up to 50 tokens and compares normalised texts. Here examples of like
length share a batch, a row stops as soon as its text can no longer become a label, and models with
a plain cache are read by `cached`; which answers are right does not change by that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from nlora import processes
from nlora.data.batches import Collator, by_budget
from nlora.data.encode import Encoder
from nlora.data.task import Example
from nlora.evaluation.cached import Decoded, decode_with_cache
from nlora.evaluation.expected import ANYTHING, Expected
from nlora.evaluation.normalise import normalise
from nlora.models.prefix import why_not


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
    that are done. The model is put into evaluation mode. Of several processes each decodes its
    share of the batches that a single one would decode, and all get all answers.
    """
    model.eval()
    prompts = [ids for ids, _ in encoder.prompts(examples)]
    decode = _decode_with_generate if why_not(model) else decode_with_cache
    known: dict[tuple[str, ...], Expected] = {}
    expected = [
        ANYTHING
        if not early_stop or e.task.labels is None
        else known.get(e.task.labels)
        or known.setdefault(e.task.labels, Expected.of(e.task.labels, encoder))
        for e in examples
    ]
    texts: dict[int, str] = {}
    for rows, found in decode(model, encoder, prompts, expected, max_new_tokens, batch_tokens):
        texts.update(zip(rows, found, strict=True))
        advance(len(rows))
    elsewhere = len(examples) - len(texts)
    for found in processes.gathered(texts):
        texts.update(found)
    advance(elsewhere)
    return [Prediction(texts[i], e.label) for i, e in enumerate(examples)]


def _decode_with_generate(
    model: Any,
    encoder: Encoder,
    prompts: Sequence[list[int]],
    expected: Sequence[Expected],
    max_new_tokens: int,
    batch_tokens: int,
) -> Decoded:
    """All other models, through their own `generate`, which stops when no row is left."""
    tokenizer = encoder.tokenizer
    collator = Collator(tokenizer.pad_token_id, encoder.encoder_decoder)
    for rows in processes.share(by_budget([len(p) for p in prompts], batch_tokens)):
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
                [_HopelessRows(encoder, [expected[i] for i in rows])]
            ),
        )
        new = out if encoder.encoder_decoder else out[:, batch["input_ids"].shape[1] :]
        yield rows, [encoder.text(row) for row in new]


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
