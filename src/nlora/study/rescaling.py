"""Is it sparsity, or do smaller updates forget less? A finished run with its updates shrunk.

Nothing is trained. The model after every stage answers the tests of the tasks so far once more,
with every ΔW multiplied by a scale. `beside` is a run on the same tasks, such as one of
`n-lora`: each update is then scaled to the ‖ΔW‖_F of the same stage there, too. If shrinking alone
keeps as much, sparsity is not the cause; what it learns less stands beside it.

Adds a row per scale to a ledger, as `nlora compare` writes it, with `scale` or `size` among the
settings and in the method's name (`inc-lora:scale=0.5`, `inc-lora:size=n-lora`), and each stage's
scale among its notes: `nlora table` puts it beside the runs themselves. Scale 1 is MODEL_DIR
itself. The run is of a method that makes one model of LoRA adapters.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from nlora.adapters.peft_files import WEIGHTS, read_adapter
from nlora.continual.commit import commit
from nlora.continual.model import ContinualModel
from nlora.continual.results import results
from nlora.data.task import digest
from nlora.errors import NloraError
from nlora.lowrank.factors import svd
from nlora.plan.config import stored_config
from nlora.plan.resolve import choose
from nlora.report import ledger
from nlora.store.directory import ModelDirectory
from nlora.study.grid import stream_name
from nlora.study.rows import commit as source_commit
from nlora.study.rows import row


@dataclass(frozen=True)
class Finished:
    """A finished run of a method that makes one model of LoRA adapters."""

    directory: ModelDirectory
    updates: list[Path]

    @classmethod
    def at(cls, path: Path) -> "Finished":
        """The run in this folder. Raises NloraError for one of another kind."""
        directory = ModelDirectory(path)
        config = stored_config(directory)
        built = choose(config).method
        if built.adapter != "lora" or built.storage_grows:
            raise NloraError(f"{path}: {config.method} does not make one model of LoRA adapters")
        updates = directory.update_paths()
        if len(updates) < len(directory.stages()) or not updates:
            raise NloraError(f"{path} has not learned an update per task")
        return cls(directory, updates)

    @property
    def tasks(self) -> list[str]:
        """The tasks, in the order in which they were learned."""
        return [record.name for record in self.directory.stages()]

    def sizes(self) -> list[float]:
        """‖ΔW‖_F of each update, over all matrices."""
        found = []
        for adapter in map(read_adapter, self.updates):
            each = [svd(adapter.factors(module)).S.norm() for module in adapter.shapes]
            found.append(float(torch.stack(each).norm()))
        return found


def rescaled(run: Finished, scales: Sequence[float], out: Path) -> ModelDirectory:
    """A model directory at `out` like the run's, each update multiplied by its scale."""
    directory, source = ModelDirectory(out), run.directory
    model = ContinualModel.open(source.path)
    with directory.locked(), TemporaryDirectory() as scratch:
        directory.write_config(source.config())
        if zero := source.zero_shot():
            directory.adopt(source, zero)
        model.directory, tasks = directory, model.stream
        updates = _scaled(run.updates, scales, Path(scratch))
        for k, record in enumerate(source.stages(), start=1):
            with model.adapter.after(updates[:k]):
                answers = model.evaluate(tasks[:k])
                notes = {**record.notes, "scale": scales[k - 1]}
                accuracy = model.measured(answers)
                changed = record.model_copy(
                    update={"files": {}, "notes": notes, "accuracy": accuracy}
                )
                steps = list(source.steps(record))
                commit(model, changed, answers, tasks[k - 1 : k], steps)
        config = source.config()
        directory.write_results(results(directory, config["tasks"], config["method"]))
    return directory


def _scaled(updates: Sequence[Path], scales: Sequence[float], folder: Path) -> list[Path]:
    """Copies of saved adapters below `folder`, the ΔW of each multiplied by its scale."""
    copies = []
    for number, (update, scale) in enumerate(zip(updates, scales, strict=True)):
        copies.append(copytree(update, folder / str(number)))
        tensors = load_file(update / WEIGHTS)
        tensors = {n: scale * t if ".lora_B." in n else t for n, t in tensors.items()}
        save_file(tensors, copies[-1] / WEIGHTS)
    return copies


def rescaled_row(
    run: Finished, setting: str, value: float | str, scales: Sequence[float]
) -> dict[str, Any]:
    """The ledger's row of a run with its updates scaled, as one more setting of its method."""
    with TemporaryDirectory() as folder:
        found = row(rescaled(run, scales, Path(folder) / "model"), source_commit())
    configuration = found["configuration"]
    configuration["settings"][setting] = value
    config = stored_config(run.directory)
    stream = stream_name(config.stream) if config.stream else ",".join(run.tasks)
    method = f"{config.method}:{setting}={value}"
    cell = {"stream": stream, "method": method, "seed": config.seed}
    return {"cell": cell, **found, "hash": digest(configuration), "tuning": None}


def rescale(
    path: Path, scales: Sequence[float], beside: Path | None, out: Path
) -> Iterator[dict[str, Any]]:
    """The rows of the run at `path` at each scale, and at the sizes of the run `beside`.

    Each is in the ledger `out` when it is yielded. Raises NloraError for a run that is not of one
    model of LoRA adapters, and where the two runs have not learned the same tasks.
    """
    run = Finished.at(path)
    wanted: list[tuple[str, float | str, list[float]]] = [
        ("scale", scale, [scale] * len(run.updates)) for scale in scales
    ]
    if beside is not None:
        other = Finished.at(beside)
        if other.tasks != run.tasks:
            raise NloraError(f"{beside} has not learned the same tasks in a row")
        pairs = zip(run.sizes(), other.sizes(), strict=True)
        each = [theirs / own if own else 0.0 for own, theirs in pairs]
        wanted.append(("size", stored_config(other.directory).method, each))
    for setting in wanted:
        found = rescaled_row(run, *setting)
        ledger.write(out, found)
        yield found
