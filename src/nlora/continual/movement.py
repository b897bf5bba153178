"""How far a stage moved the model: the KL divergence between before and after, by task.

For each task the mean over answer tokens of KL(p_before ‖ p_after), in nats, over the whole
vocabulary. Both models read the prompts of test examples, at most `PROMPTS` of each task, and then
the right answers (teacher forcing). Test examples are read for the new task as for all others: they
are what a directory keeps of every task, and no stage was trained on them. Nothing is fitted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from nlora import processes
from nlora.data.batches import IGNORED, Collator, by_budget, on_device
from nlora.data.encode import Encoded
from nlora.data.task import TaskData, sample
from nlora.evaluation.divergence import divergences
from nlora.fast.logits import HELD
from nlora.progress import shown

if TYPE_CHECKING:
    from nlora.continual.model import ContinualModel

PROMPTS = 200
"""Of each task, at most; the same for every seed and stage."""


def moved(model: ContinualModel, stage: int, tasks: Sequence[TaskData]) -> dict[str, float]:
    """By task, how far the stage that was just trained moved the model on it.

    The newest model counts, before and after, also where a method routes. A task on which it is
    not finite is left out: the model gives NaN there.
    """
    rows = [[(data.name, row) for row in _encoded(model, data)] for data in tasks]
    sums = {data.name: torch.zeros(2, dtype=torch.float64) for data in tasks}
    """Of each task's divergences, and of its answer tokens."""
    if model.encoder.encoder_decoder:
        rows = [[row for own in rows for row in own]]  # no batch of one task has a prefix to share
    with shown(model.progress, "KL to the model before", sum(map(len, rows))):
        for part in _parts(rows, model.plan.run.eval_tokens, model.encoder.ids or 1):
            read = processes.share_of_passes(part)
            batches = [_collated(model, [row for _, row in batch]) for batch in read]
            with model.after(stage - 1):
                before = [model.asked.logits(batch) for batch in batches]
            for asked, batch, then in zip(read, batches, before, strict=True):
                each = divergences(then, model.asked.logits(batch)).cpu()
                of_rows = each.split((batch["labels"] != IGNORED).sum(1).tolist())
                for (name, _), own in zip(asked, of_rows, strict=True):
                    sums[name] += torch.stack([own.sum(), torch.tensor(float(len(own)))])
            model.progress.advance(sum(map(len, part)))
    found = {name: processes.summed_passes(total).tolist() for name, total in sums.items()}
    means = {name: total / max(count, 1) for name, (total, count) in found.items()}
    return {name: mean for name, mean in means.items() if math.isfinite(mean)}


def _encoded(model: ContinualModel, data: TaskData) -> list[Encoded]:
    return model.encoder.all(sample(data.test, PROMPTS, seed=0))


Asked = list[tuple[str, Encoded]]
"""Rows, each with the name of its task."""


def _parts(rows: Sequence[Asked], tokens: int, vocabulary: int) -> Iterator[list[Asked]]:
    """Batches, each of one of the lists, as many at a time as have few enough logits."""
    part: list[Asked] = []
    held = 0
    for together in rows:
        for chosen in by_budget([len(row) for _, row in together], tokens):
            batch = [together[i] for i in chosen]
            size = vocabulary * sum(len(row.answer) for _, row in batch)
            if part and held + size > HELD:
                yield part
                part, held = [], 0
            part.append(batch)
            held += size
    if part:
        yield part


def _collated(model: ContinualModel, rows: Sequence[Encoded]) -> Mapping[str, Any]:
    encoder, prefix = model.encoder, model.plan.run.shared_prefix == "auto"
    collate = Collator(encoder.tokenizer.pad_token_id, encoder.encoder_decoder, prefix)
    return on_device(collate(rows), model.adapter.model.device)
