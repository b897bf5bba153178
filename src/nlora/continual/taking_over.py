"""An adapter of PEFT's as the first stage of a model directory, as if it had been trained here."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from transformers import set_seed

from nlora.adapters.given import Given, given
from nlora.adapters.lora import Lora
from nlora.checksum import sha256
from nlora.continual.commit import commit, record_of
from nlora.continual.model import ContinualModel
from nlora.data.task import TaskData
from nlora.methods.context import Stage
from nlora.store.directory import StageRecord
from nlora.store.manifests import Manifest


def take_over(model: ContinualModel, stage: Stage, tested: Sequence[TaskData]) -> StageRecord:
    """Let the adapter of the plan be the update of `stage`, test `tested`, and commit it.

    Raises NloraError if it does not fit into the model.
    """
    source = model.plan.config.from_adapter
    assert source is not None
    found = given(source)
    if found.base is not None and model.plan.config.model != found.base:
        model.progress.message(f"{source} was trained on {found.base}, taken for the same model")
    adapter = model.adapter
    assert isinstance(adapter, Lora)
    set_seed(stage.seed)
    adapter.begin()
    adapter.put(found.factors(adapter.factors()))
    adapter.consolidate()
    record = record_of(
        stage,
        notes={
            "from_adapter": origin(found, source),
            **({"adapted": asdict(adapter.targets)} if adapter.targets else {}),
            **adapter.notes(),
        },
    )
    record.manifest = Manifest(adds=[record.folder])
    model.stand_after(record)
    started = time.perf_counter()
    answers = model.evaluate(tested)
    record.accuracy = model.measured(answers)
    record.seconds = {"evaluation": time.perf_counter() - started}
    commit(model, record, answers, stage.tasks, [])
    return record


def origin(found: Given, source: str) -> dict[str, Any]:
    """What the record of a stage says of the adapter that it was taken from."""
    return {
        "source": source,
        "sha256": sha256(found.adapter.path),
        "base": found.base,
        "rslora": bool(found.adapter.config.use_rslora),
    }
