"""Is it sparsity, or do smaller updates forget less? A finished run with its updates shrunk.

    python -m nlora.study.rescaling MODEL_DIR [--scales 0.7,0.5,0.3] [--beside MODEL_DIR]
                                    --out LEDGER

Nothing is trained. The model after every stage answers the tests of the tasks so far once more,
with every ΔW multiplied by a scale. `--beside` names a run on the same tasks, such as one of
`n-lora`: each update is then scaled to the ‖ΔW‖_F of the same stage there, too. If shrinking alone
keeps as much, sparsity is not the cause; what it learns less stands beside it.

Adds a row per scale to a ledger, as `nlora compare` writes it, with `scale` or `size` among the
settings and in the method's name (`inc-lora:scale=0.5`, `inc-lora:size=n-lora`), and each stage's
scale among its notes: `nlora table` puts it beside the runs themselves. Scale 1 is MODEL_DIR
itself. The run is of a method that makes one model of LoRA adapters.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from nlora.analysis.adapters import WEIGHTS, read_adapter
from nlora.data.task import digest
from nlora.errors import NloraError
from nlora.lowrank.factors import svd
from nlora.models.backbone import load
from nlora.models.catalog import resolve
from nlora.report import ledger
from nlora.store.directory import ModelDirectory
from nlora.study.grid import stream_name
from nlora.study.rows import commit, row
from nlora.training.config import plan
from nlora.training.learner import Learner, weights_dtype
from nlora.training.progress import Silent
from nlora.training.results import results
from nlora.training.run import learned_tasks, stored_config


@dataclass(frozen=True)
class Finished:
    """A finished run of a method that makes one model of LoRA adapters."""

    directory: ModelDirectory
    updates: list[Path]

    @classmethod
    def at(cls, path: Path) -> "Finished":
        """Raises NloraError for any other run."""
        directory = ModelDirectory(path)
        config = stored_config(directory)
        built = plan(config).method
        if built.carrier != "lora" or built.storage_grows:
            raise NloraError(f"{path}: {config.method} does not make one model of LoRA adapters")
        updates = directory.update_paths()
        if len(updates) < len(directory.stages()) or not updates:
            raise NloraError(f"{path} has not learned an update per task")
        return cls(directory, updates)

    @property
    def tasks(self) -> list[str]:
        """In the order in which they were learned."""
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
    config = stored_config(source)
    resolved = resolve(config.model)
    planned = plan(config, resolved.recommended)
    tasks = learned_tasks(source)
    with directory.locked(), TemporaryDirectory() as scratch:
        directory.write_config(source.config())
        if zero := source.zero_shot():
            directory.adopt(source, zero)
        backbone = load(resolved, weights_dtype(planned))
        learner = Learner(planned, backbone, directory, tasks, Silent())
        updates = _scaled(run.updates, scales, Path(scratch))
        for k, record in enumerate(source.stages(), start=1):
            with learner.carrier.standing(updates[:k]):
                answers = learner.evaluate(tasks[:k])
                losses = (source.stage_path(record) / "losses.jsonl").read_text("utf-8")
                notes = {**record.notes, "scale": scales[k - 1]}
                changed = record.model_copy(update={"files": {}, "notes": notes})
                steps = [json.loads(line) for line in losses.splitlines()]
                learner.commit(changed, answers, steps, record.seconds, tasks[k - 1 : k])
        names = source.config()["tasks"]
        directory.write_results(results(directory, names, config.method))
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
        found = row(rescaled(run, scales, Path(folder) / "model"), commit())
    configuration = found["configuration"]
    configuration["settings"][setting] = value
    config = stored_config(run.directory)
    stream = stream_name(config.stream) if config.stream else ",".join(run.tasks)
    method = f"{config.method}:{setting}={value}"
    cell = {"stream": stream, "method": method, "seed": config.seed}
    return {"cell": cell, **found, "hash": digest(configuration), "tuning": None}


def main(arguments: Sequence[str] | None = None) -> None:
    """Add the rows that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="MODEL_DIR")
    parser.add_argument("--scales", default="0.7,0.5,0.3")
    parser.add_argument("--beside", type=Path, metavar="MODEL_DIR")
    parser.add_argument("--out", type=Path, metavar="LEDGER", required=True)
    options = parser.parse_args(arguments)
    try:
        scales = [float(scale) for scale in options.scales.split(",")]
    except ValueError:
        parser.error(f"--scales takes numbers with commas between them, not '{options.scales}'")
    try:
        run = Finished.at(options.run)
        wanted: list[tuple[str, float | str, list[float]]] = [
            ("scale", scale, [scale] * len(run.updates)) for scale in scales
        ]
        if options.beside is not None:
            other = Finished.at(options.beside)
            if other.tasks != run.tasks:
                raise NloraError(f"{other.directory.path} has not learned the same tasks in a row")
            pairs = zip(run.sizes(), other.sizes(), strict=True)
            method = stored_config(other.directory).method
            each = [theirs / own if own else 0.0 for own, theirs in pairs]
            wanted.append(("size", method, each))
        for setting in wanted:
            found = rescaled_row(run, *setting)
            ledger.write(options.out, found)
            print(f"{found['cell']['method']}: {found['average_accuracy']:.1f}", flush=True)
    except NloraError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
