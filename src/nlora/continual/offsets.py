"""Corrections of labels' scores that stages have put in force, and what is written of them.

They come with a stage that would have cost too much (`continual.rematch`), and belong to the model
from then on: until the task is learned anew, another stage brings new ones, or theirs is taken out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nlora.evaluation.matching import Correction
from nlora.store.records import Offsets, StageRecord, standing

if TYPE_CHECKING:
    from nlora.data.task import TaskData

OFFSETS = "offsets.json"
"""The file in which programs that know nothing of nlora find them."""
TOLD = f"some tasks are answered by offsets per label, which are in {OFFSETS} with their rule"
RULE = (
    "score of a label = scale * ln p(label and end token | prompt) + its offset; the answer is the "
    "label of the highest score"
)


def in_force(records: Sequence[StageRecord]) -> dict[str, Offsets]:
    """Those of the model after these stages, by task."""
    if not any(record.matched for record in records):
        return {}
    found: dict[str, Offsets] = {}
    for record in standing(records):
        for task in record.tasks:
            found.pop(task["name"], None)  # its new update was trained without
        found.pop(record.notes.get("taken_out", {}).get("task"), None)
        found |= record.matched
    return found


def stored(made: Correction, labels: Sequence[str]) -> Offsets:
    """A correction as a stage's record has it."""
    return Offsets(
        offsets=dict(zip(labels, made.offsets.tolist(), strict=True)), scale=float(made.scale)
    )


def correction(known: Offsets, labels: Sequence[str]) -> Correction:
    """What a record has, for scores in the order of these labels."""
    return Correction(np.array([known.offsets.get(label, 0.0) for label in labels]), known.scale)


def beside(
    records: Sequence[StageRecord],
    stream: Sequence[TaskData],
    instead: Mapping[str, Offsets] | None = None,
) -> dict[str, Any]:
    """What lies beside an exported model, by the name of its file: the corrections in force, or of
    a task those given `instead`; nothing where there are none."""
    known = in_force(records) | dict(instead or {})
    tasks = {d.name: known[d.name].model_dump() for d in stream if d.name in known}
    return {OFFSETS: {"rule": RULE, "tasks": tasks}} if tasks else {}
