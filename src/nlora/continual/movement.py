"""How far a stage moved the model: the KL divergence between before and after, by task.

For each task the mean over answer tokens of KL(p_before ‖ p_after), in nats, over the whole
vocabulary. Both models read the prompts of test examples, at most `PROMPTS` of each task, and then
the right answers (teacher forcing). Test examples are read for the new task as for all others: they
are what a directory keeps of every task, and no stage was trained on them. Nothing is fitted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from nlora import processes
from nlora.data.batches import Collator, by_budget, on_device
from nlora.data.encode import IGNORED, Encoded
from nlora.data.task import TaskData, sample
from nlora.evaluation.divergence import divergences
from nlora.progress import shown

if TYPE_CHECKING:
    from nlora.continual.model import ContinualModel

PROMPTS = 200
"""Of each task, at most; the same for every seed and stage."""
HELD = 2**25
"""Logits of the model before that are held at a time, since it is another one in turns."""


def moved(model: ContinualModel, stage: int, tasks: Sequence[TaskData]) -> dict[str, float]:
    """By task, how far the stage that was just trained moved the model on it.

    The newest model counts, before and after, also where a method routes.
    """
    examples = [example for data in tasks for example in sample(data.test, PROMPTS, seed=0)]
    rows = model.encoder.all(examples)
    place = {data.name: i for i, data in enumerate(tasks)}
    sums = torch.zeros(len(tasks), 2, dtype=torch.float64)
    """Of the divergences, and of the tokens."""
    with shown(model.progress, "KL to the model before", len(rows)):
        for part in _parts(rows, model.plan.run.eval_tokens, model.encoder.ids or 1):
            batches = processes.share(part)
            with model.after(stage - 1):
                before = [_logits(model, [rows[i] for i in batch]) for batch in batches]
            for batch, then in zip(batches, before, strict=True):
                each = divergences(then, _logits(model, [rows[i] for i in batch])).cpu()
                counts = [_counted(rows[i]) for i in batch]
                for i, tokens in zip(batch, each.split(counts), strict=True):
                    sums[place[rows[i].task]] += torch.tensor([tokens.sum(), len(tokens)])
            model.progress.advance(sum(map(len, part)))
    totals = processes.summed(sums).tolist()
    return {
        data.name: total / max(count, 1) for data, (total, count) in zip(tasks, totals, strict=True)
    }


def _parts(rows: Sequence[Encoded], tokens: int, vocabulary: int) -> Iterator[list[list[int]]]:
    """Batches of rows, as many at a time as have few enough logits."""
    part: list[list[int]] = []
    held = 0
    for batch in by_budget([len(row) for row in rows], tokens):
        size = vocabulary * sum(_counted(rows[i]) for i in batch)
        if part and held + size > HELD:
            yield part
            part, held = [], 0
        part.append(batch)
        held += size
    if part:
        yield part


def _counted(row: Encoded) -> int:
    return sum(token != IGNORED for token in row.labels())


def _logits(model: ContinualModel, rows: Sequence[Encoded]) -> Any:
    """At the answer tokens of these rows, (n, vocabulary), of the model as it is at the moment."""
    encoder = model.encoder
    collate = Collator(encoder.tokenizer.pad_token_id, encoder.encoder_decoder)
    return model.asked.logits(on_device(collate(rows), model.adapter.model.device))
