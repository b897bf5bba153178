"""A stage that costs too much, repaired without training: its answers to earlier tasks are matched.

Much of what a task loses is bias or form: the model still tells the texts apart, and prefers other
words. So each task that falls too far is asked about texts that have nothing to do with it, before
the stage and after it, and the scores of its labels get an offset each and one scale that make the
answers as they were (`evaluation.matching.match_answers`; what is left of a loss then is knowledge,
see `nlora explain`). No old data and no step of training; the new update stays whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nlora.continual.guard import Verdict
from nlora.continual.offsets import stored
from nlora.continual.self_written import self_written
from nlora.data.task import Example, TaskData
from nlora.errors import NloraError
from nlora.evaluation.matching import match_answers, probabilities
from nlora.store.records import Offsets

if TYPE_CHECKING:
    from nlora.continual.model import ContinualModel

TEXTS = 100
"""Neutral texts that a task is asked about."""


def why_not(model: ContinualModel, name: str, found: Verdict) -> str | None:
    """Why answers of the model with the new task `name` cannot be matched, judged so; or None."""
    if model.method.routes_by_input or model.method.needs_task_id:
        return "each task has an adapter of its own"
    if name in found.too_far:
        return f"'{name}' itself answers its earlier tests otherwise"
    learned = {data.name for data in model.stream if not data.only_tested}
    watched = [task for task in found.too_far if task not in learned]
    if watched:
        return f"'{watched[0]}' is only tested, and offsets are for tasks that were learned"
    labelled = {data.name for data in model.stream if data.task.labels is not None}
    free = [task for task in found.too_far if task not in labelled]
    return f"'{free[0]}' has no labels" if free else None


def corrections(model: ContinualModel, tasks: Sequence[TaskData]) -> dict[str, Offsets]:
    """By task, what makes the model with the stage in hand answer neutral texts as without it.

    The texts are what the base model writes by itself. Raises NloraError where it writes nothing.
    """
    texts = self_written(model, TEXTS)
    if not texts:
        raise NloraError("the base model writes no texts of its own to match them by")
    asked = {d.name: [Example(d.task, text, "") for text in texts] for d in tasks}
    with model.standing(len(model.records) - 1):
        then = {task: np.array(model.corrected(rows, task)) for task, rows in asked.items()}
    return {
        data.name: stored(
            match_answers(
                np.array(model.scores(asked[data.name], data.name)),
                probabilities(then[data.name]),
            ),
            data.task.labels or (),
        )
        for data in tasks
    }
