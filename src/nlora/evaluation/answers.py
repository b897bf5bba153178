"""What a model answers to examples, and what the answers are measured by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nlora import processes
from nlora.evaluation.expected import ANYTHING, Expected
from nlora.evaluation.normalise import normalise

if TYPE_CHECKING:
    from nlora.data.encode import Encoder
    from nlora.data.task import Example


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model answered to one example; `source` is the example's text."""

    text: str
    label: str
    source: str = ""

    @property
    def correct(self) -> bool:
        """Exact match after normalisation."""
        return normalise(self.text) == normalise(self.label)


Metric = Callable[[Sequence[Prediction]], float]
"""A task's metric: a number of answers to it, in per cent."""


def exact_match(predictions: Sequence[Prediction]) -> float:
    """Per cent of answers that are right: exact match after normalisation."""
    return 100.0 * sum(p.correct for p in predictions) / len(predictions)


def off_list(predictions: Sequence[Prediction], labels: Sequence[str]) -> float:
    """Per cent of answers that are none of the labels, after normalisation."""
    known = {normalise(label) for label in labels}
    return 100.0 * sum(normalise(p.text) not in known for p in predictions) / len(predictions)


def answer(
    model: Any,
    encoder: Encoder,
    examples: Sequence[Example],
    max_new_tokens: int = 50,
    batch_tokens: int = 2048,
    early_stop: bool = True,
    advance: Callable[[int], None] = lambda count: None,
) -> list[Prediction]:
    """The model's answers to the examples, in their order, by greedy decoding.

    `batch_tokens` bounds rows × longest row of a batch; `advance` is called with the number of
    examples that are done. The model is put into evaluation mode. Of several processes each decodes
    its share of the batches that a single one would decode, and all get all answers.
    """
    import torch

    from nlora.evaluation.greedy import decode

    model.eval()
    prompts = [ids for ids, _ in encoder.prompts(examples)]
    known: dict[tuple[str, ...], Expected] = {}
    expected = [
        ANYTHING
        if not early_stop or e.task.labels is None
        else known.get(e.task.labels)
        or known.setdefault(e.task.labels, Expected.of(e.task.labels, encoder))
        for e in examples
    ]
    texts: dict[int, str] = {}
    with torch.inference_mode():
        for rows, found in decode(model, encoder, prompts, expected, max_new_tokens, batch_tokens):
            texts.update(zip(rows, found, strict=True))
            advance(len(rows))
    elsewhere = len(examples) - len(texts)
    texts = processes.united(texts)
    advance(elsewhere)
    return [Prediction(texts[i], e.label, e.text) for i, e in enumerate(examples)]
