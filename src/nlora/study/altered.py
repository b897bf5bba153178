"""A finished run with its updates changed afterwards, as a row of a ledger beside its own.

Nothing is trained. The run is of a method that makes one model of LoRA adapters.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nlora.adapters.peft_files import WEIGHTS, read_adapter
from nlora.continual.commit import commit
from nlora.continual.model import Answers, ContinualModel
from nlora.continual.results import write_results
from nlora.data.task import TaskData, digest
from nlora.errors import NloraError
from nlora.lowrank.factors import svd
from nlora.plan.config import RunConfig, stored_config
from nlora.plan.resolve import choose
from nlora.store.directory import ModelDirectory
from nlora.store.manifests import Manifests
from nlora.study.grid import stream_name
from nlora.study.rows import commit as source_commit
from nlora.study.rows import row

Tensors = dict[str, Tensor]
ROW = ("cell", "hash", "base")
"""What a row is told by: runs of another model or of other settings may share a cell's name."""

Change = Callable[[int, Tensors], Tensors]
"""From the number of an update, from 0, and its saved tensors to the changed ones."""


@dataclass(frozen=True)
class Finished:
    """A finished run of a method that makes one model of LoRA adapters, an update for each task."""

    directory: ModelDirectory
    tasks: list[str]
    """In the order in which they were learned."""
    updates: list[Path]

    @classmethod
    def at(cls, path: Path) -> "Finished":
        """The run in this folder. Raises NloraError for one of another kind, and for one whose
        tasks were not learned each once and in a row."""
        directory = ModelDirectory(path)
        config = stored_config(directory)
        built = choose(config).method
        if built.adapter != "lora" or built.storage_grows:
            raise NloraError(f"{path}: {config.method} does not make one model of LoRA adapters")
        records = directory.stages()
        folders, manifests = [record.folder for record in records], Manifests(records)
        in_a_row = all(manifests.after(k) == folders[:k] for k in range(1, len(folders) + 1))
        if not records or not in_a_row or any(len(record.tasks) != 1 for record in records):
            raise NloraError(f"{path} has not learned an update per task")
        tasks = [record.tasks[0]["name"] for record in records]
        if again := [name for name in tasks if tasks.count(name) > 1]:
            raise NloraError(
                f"{path} has learned '{again[0]}' more than once, and of an altered update of the "
                "same task nothing can be told"
            )
        if any(record.matched for record in records):
            raise NloraError(
                f"{path} answers by offsets per label that came with a stage, and they belong to "
                "its updates as they are"
            )
        return cls(directory, tasks, [directory.update_path(folder) for folder in folders])

    def sizes(self) -> list[float]:
        """‖ΔW‖_F of each update, over all matrices."""
        found = []
        for adapter in map(read_adapter, self.updates):
            each = [svd(adapter.factors(module)).S.norm() for module in adapter.shapes]
            found.append(float(torch.stack(each).norm()))
        return found


Asked = Callable[[ContinualModel, Sequence[Path], Sequence[TaskData]], Answers]
"""The answers to the tasks so far: of the model, in which the changed updates are in force."""


def all_so_far(
    model: ContinualModel, updates: Sequence[Path], tasks: Sequence[TaskData]
) -> Answers:
    """To the tests of these tasks."""
    return model.evaluate(tasks)


def altered(
    run: Finished,
    change: Change,
    notes: Sequence[dict[str, Any]],
    out: Path,
    asked: Asked = all_so_far,
) -> ModelDirectory:
    """A model directory at `out` like the run's, each update changed.

    Its stages have the `notes`, one each, beside the run's own, and the answers that `asked` gives.
    """
    directory, source = ModelDirectory(out), run.directory
    model = ContinualModel.open(source.path)
    with directory.locked(), TemporaryDirectory() as scratch:
        directory.write_config(source.config())
        if zero := source.zero_shot():
            directory.adopt(source, zero)
        model.directory, stream = directory, {data.name: data for data in model.stream}
        tasks = [stream[name] for name in run.tasks]
        updates = _copies(run.updates, change, Path(scratch))
        for k, record in enumerate(source.stages(), start=1):
            began = time.perf_counter()
            with model.adapter.after(updates[:k]):
                answers = asked(model, updates, tasks[:k])
                changed = record.model_copy(
                    update={
                        "files": {},
                        "notes": {**record.notes, **notes[k - 1]},
                        "accuracy": model.measured(answers),
                        "kl": {},  # that of the stage as it was trained
                        "seconds": {"training": 0.0, "evaluation": time.perf_counter() - began},
                    }
                )
                steps = list(source.steps(record))
                commit(model, changed, answers, tasks[k - 1 : k], steps)
        write_results(directory, run.tasks, source.config()["method"])
    return directory


def altered_row(
    run: Finished, setting: str, value: float | str, make: Callable[[Path], ModelDirectory]
) -> dict[str, Any]:
    """The ledger's row of the run as `make` has changed it, as one more setting of its method."""
    with TemporaryDirectory() as folder:
        found = row(make(Path(folder) / "model"), source_commit())
    configuration = found["configuration"]
    configuration["settings"][setting] = value
    config = stored_config(run.directory)
    stream = stream_name(config.stream) if config.stream else ",".join(run.tasks)
    method = named(config, {setting: value})
    cell = {"stream": stream, "method": method, "seed": config.seed}
    return {"cell": cell, **found, "hash": digest(configuration), "tuning": None}


def named(config: RunConfig, more: Mapping[str, Any] | None = None) -> str:
    """A run's method as a comparison calls it, with its own settings that are not as by default."""
    own = choose(config).method.settings.model_dump(mode="json", exclude_defaults=True)
    texts = {**own, **(more or {})}
    known = {n: v if isinstance(v, str) else json.dumps(v) for n, v in texts.items()}
    settings = ",".join(f"{name}={value}" for name, value in known.items())
    return f"{config.method}:{settings}" if settings else config.method


def _copies(updates: Sequence[Path], change: Change, folder: Path) -> list[Path]:
    """Copies of saved adapters below `folder`, the tensors of each changed."""
    copies = []
    for number, update in enumerate(updates):
        copies.append(copytree(update, folder / str(number)))
        save_file(change(number, load_file(update / WEIGHTS)), copies[-1] / WEIGHTS)
    return copies
