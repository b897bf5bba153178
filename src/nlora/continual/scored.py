"""How likely each label was as the answer to each test of a stage, kept beside the answers.

An evaluation that says the most likely label has asked of them all. `nlora explain` takes them from
here, so it need not ask a stage's model of its tests again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import ndarray
from safetensors import safe_open
from safetensors.numpy import save

from nlora.data.task import Example, Task, digest
from nlora.store.atomic import draft_bytes

if TYPE_CHECKING:
    from nlora.continual.model import ContinualModel
    from nlora.evaluation.answers import Prediction
    from nlora.plan.settings import RunSettings
    from nlora.store.directory import ModelDirectory
    from nlora.store.records import StageRecord

FILE = "scores.safetensors"
"""In a stage's folder: by task ln p (tests, labels) in fp32, each with a hash of what was asked."""

_READING = ("prompt", "chat", "max_length", "max_text_tokens", "precision", "quantization")


def how_read(run: RunSettings) -> list[Any]:
    """The run settings that decide what a model reads of an example, and how precisely."""
    known = run.model_dump(mode="json")
    return [known.get(name) for name in _READING]


def draft_scores(
    model: ContinualModel, answers: Mapping[str, Sequence[Prediction]], folder: Path
) -> None:
    """Write into a stage's folder what its answers say of labels, if anything."""
    tasks = {data.name: data.task for data in model.stream}
    scores, asked = {}, {}
    for name, rows in answers.items():
        found = [row.scores for row in rows]
        if name not in tasks or not found or None in found:
            continue
        scores[_key(name)] = np.array(found, dtype=np.float32)
        asked[_key(name)] = _asked(model.plan.run, tasks[name], [row.source for row in rows])
    if scores:
        metadata = {"asked": json.dumps(asked)}  # of several the order would be another each time
        draft_bytes(folder / FILE, save(scores, metadata=metadata))


def kept_scores(
    directory: ModelDirectory, record: StageRecord, run: RunSettings, examples: Sequence[Example]
) -> ndarray | None:
    """ln p of each label for examples of one task, (examples, labels) in fp64, if a stage's tests
    were these and were read so. Raises NloraError if the file was changed or is missing."""
    if not examples or FILE not in record.files:
        return None
    task = examples[0].task
    key = _key(task.name)
    with safe_open(directory.verified(record, FILE), framework="np") as file:
        asked = json.loads(file.metadata()["asked"])
        if asked.get(key) != _asked(run, task, [e.text for e in examples]):
            return None
        return file.get_tensor(key).astype(np.float64)


def _key(task: str) -> str:
    return f"task {task}"  # no name of a tensor that the format has taken


def _asked(run: RunSettings, task: Task, texts: Sequence[str]) -> str:
    return digest([how_read(run), task.to_json(), list(texts)])
