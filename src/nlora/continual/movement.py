"""How far a stage moved the model: the KL divergence between before and after, by task.

For each task the mean over answer tokens of KL(p_before ‖ p_after), in nats, over the whole
vocabulary. Both models read the prompts of test examples, at most `PROMPTS` of each task, and then
the right answers (teacher forcing). Test examples are read for the new task as for all others: they
are what a directory keeps of every task, and no stage was trained on them. Nothing is fitted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nlora import processes
from nlora.data.batches import Collator, by_budget, on_device
from nlora.data.encode import Encoded
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

    The newest model counts, before and after, also where a method routes. A task on which it is
    not finite is left out: the model gives NaN there.
    """
    rows = {data.name: _encoded(model, data) for data in tasks}
    sums = {name: torch.zeros(2, dtype=torch.float64) for name in rows}
    """Of each task's divergences, and of its answer tokens."""
    with shown(model.progress, "KL to the model before", sum(map(len, rows.values()))):
        for part in _parts(rows, model.plan.run.eval_tokens, model.encoder.ids or 1):
            batches = processes.share_of_passes(part)
            with model.after(stage - 1):
                before = [_logits(model, batch) for _, batch in batches]
            for (name, batch), then in zip(batches, before, strict=True):
                each = divergences(then, _logits(model, batch)).cpu()
                sums[name] += torch.stack([each.sum(), torch.tensor(float(len(each)))])
            model.progress.advance(sum(len(batch) for _, batch in part))
    found = {name: processes.summed_passes(total).tolist() for name, total in sums.items()}
    means = {name: total / max(count, 1) for name, (total, count) in found.items()}
    return {name: mean for name, mean in means.items() if math.isfinite(mean)}


def _encoded(model: ContinualModel, data: TaskData) -> list[Encoded]:
    return model.encoder.all(sample(data.test, PROMPTS, seed=0))


def _parts(
    rows: Mapping[str, Sequence[Encoded]], tokens: int, vocabulary: int
) -> Iterator[list[tuple[str, list[Encoded]]]]:
    """Batches of one task each, with its name, as many at a time as have few enough logits."""
    part: list[tuple[str, list[Encoded]]] = []
    held = 0
    for name, own in rows.items():
        for chosen in by_budget([len(row) for row in own], tokens):
            batch = [own[i] for i in chosen]
            size = vocabulary * sum(len(row.answer) for row in batch)
            if part and held + size > HELD:
                yield part
                part, held = [], 0
            part.append((name, batch))
            held += size
    if part:
        yield part


def _logits(model: ContinualModel, rows: Sequence[Encoded]) -> Tensor:
    """At the answer tokens of these rows, (n, vocabulary), of the model as it is at the moment."""
    encoder, prefix = model.encoder, model.plan.run.shared_prefix == "auto"
    collate = Collator(encoder.tokenizer.pad_token_id, encoder.encoder_decoder, prefix)
    return model.asked.logits(on_device(collate(rows), model.adapter.model.device))
