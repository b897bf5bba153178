"""What a model answers to examples, and what the answers are measured by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nlora import processes
from nlora.data.comparing import comparison, normalise, punctuated, with_punctuation
from nlora.evaluation.expected import ANYTHING, Expected

if TYPE_CHECKING:
    from nlora.data.encode import Encoder
    from nlora.data.task import Example


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model answered to one example."""

    text: str
    label: str
    source: str = ""
    """The text that was asked about."""
    likely: str | None = None
    """The most likely of the task's labels, where that was asked for."""
    punctuated: bool = False
    """Whether punctuation counts: it alone tells some of the task's right answers apart."""
    labels: tuple[str, ...] | None = None
    """The task's labels, where it has any."""
    scores: Sequence[float] | None = None
    """ln p of each of the labels, where that was asked for and nothing corrects it."""

    @property
    def compared(self) -> tuple[str, str]:
        """Answer and label as they are compared: after normalisation."""
        form = with_punctuation if self.punctuated else normalise
        return form(self.text), form(self.label)

    @property
    def correct(self) -> bool:
        """Exact match after normalisation."""
        given, right = self.compared
        return given == right


Metric = Callable[[Sequence[Prediction]], float]
"""A task's metric: a number of answers to it, in per cent."""


def exact_match(predictions: Sequence[Prediction]) -> float:
    """Per cent of answers that are right: exact match after normalisation."""
    return 100.0 * sum(p.correct for p in predictions) / len(predictions)


def off_list(predictions: Sequence[Prediction], labels: Sequence[str]) -> float:
    """Per cent of answers that are none of the labels, after normalisation."""
    form = comparison(labels)
    known = {form(label) for label in labels}
    return 100.0 * sum(form(p.text) not in known for p in predictions) / len(predictions)


def among_labels(predictions: Sequence[Prediction]) -> list[Prediction] | None:
    """The predictions with the most likely label as their answer, where that was asked of all."""
    if any(p.likely is None for p in predictions):
        return None
    return [replace(p, text=p.likely or "") for p in predictions]


def answer(
    model: Any,
    encoder: Encoder,
    examples: Sequence[Example],
    max_new_tokens: int = 50,
    batch_tokens: int = 2048,
    early_stop: bool = True,
    advance: Callable[[int], None] = lambda count: None,
    seen: Callable[[Any], object] = lambda batch: None,
) -> list[Prediction]:
    """The model's answers to the examples, in their order, by greedy decoding.

    `batch_tokens` bounds rows × longest row of a batch; `advance` is called with the number of
    examples that are done, `seen` as `greedy.decode` says. The model is put into evaluation mode.
    Of several processes each decodes its share of the batches that a single one would decode, and
    all get all answers.
    """
    import torch

    from nlora.evaluation.greedy import decode

    model.eval()
    prompts = [ids for ids, _ in encoder.prompts(examples)]
    known: dict[tuple[tuple[str, ...], bool], Expected] = {}
    expected = [
        ANYTHING
        if not early_stop or e.task.labels is None
        else known.get((e.task.labels, e.task.chat))
        or known.setdefault(
            (e.task.labels, e.task.chat), Expected.of(e.task.labels, encoder, e.task.chat)
        )
        for e in examples
    ]
    ends = {encoder.end(chat) for chat in {e.task.chat for e in examples}}
    texts: dict[int, str] = {}
    with torch.inference_mode():
        for rows, found in decode(
            model, encoder, prompts, expected, max_new_tokens, batch_tokens, ends, seen
        ):
            texts.update(zip(rows, found, strict=True))
            advance(len(rows))
    elsewhere = len(examples) - len(texts)
    texts = processes.united(texts)
    advance(elsewhere)
    return [
        Prediction(
            texts[i], e.label, e.text, punctuated=punctuated(e.task.labels), labels=e.task.labels
        )
        for i, e in enumerate(examples)
    ]
