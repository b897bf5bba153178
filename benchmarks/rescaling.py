"""Is it sparsity, or do smaller updates forget less? A finished run with its updates shrunk.

    python benchmarks/rescaling.py MODEL_DIR [--scales 1,0.7,0.5,0.3] [--beside MODEL_DIR]
                                   [--out FILE]

The model after the last stage answers its stored test examples with every ΔW multiplied by a
scale; nothing is trained. `--beside` names a run on the same tasks, such as one of `n-lora`: it
answers too, and so does MODEL_DIR with each update scaled to the ‖ΔW‖_F of the same stage there. If
shrinking alone keeps as much, sparsity is not the cause.

Prints a JSON line per model, and appends it to FILE: the accuracy of each task and their average,
the scale of each update, ‖ΔW‖_F over all matrices of each update and of their sum, and what the run
itself recorded (at scale 1 the same). The runs are of methods that make one model of LoRA adapters.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from shutil import copy
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from nlora.analysis.adapters import WEIGHTS, read_adapter
from nlora.analysis.config import CONFIG
from nlora.cli.console import Lines
from nlora.errors import NloraError
from nlora.evaluation.decode import accuracy
from nlora.lowrank.factors import concatenate, svd
from nlora.models.backbone import load
from nlora.models.catalog import resolve
from nlora.store.directory import ModelDirectory
from nlora.training.config import plan
from nlora.training.learner import Learner, weights_dtype
from nlora.training.run import learned_tasks, stored_config


def scaled(updates: Sequence[Path], scales: Sequence[float], folder: Path) -> list[Path]:
    """Copies of saved adapters below `folder`, the ΔW of each multiplied by its scale."""
    copies = []
    for number, (update, scale) in enumerate(zip(updates, scales, strict=True)):
        tensors = load_file(update / WEIGHTS)
        tensors = {n: scale * t if ".lora_B." in n else t for n, t in tensors.items()}
        copies.append(folder / str(number))
        copies[-1].mkdir()
        copy(update / CONFIG, copies[-1] / CONFIG)
        save_file(tensors, copies[-1] / WEIGHTS)
    return copies


def sizes(updates: Sequence[Path]) -> tuple[list[float], float]:
    """‖ΔW‖_F over all matrices, of each saved adapter and of their sum."""
    adapters = [read_adapter(update) for update in updates]
    matrices = [[a.factors(module) for a in adapters] for module in adapters[0].shapes]
    each = [[float(svd(f).S.norm()) for f in matrix] for matrix in matrices]
    together = [float(svd(concatenate(matrix)).S.norm()) for matrix in matrices]
    return torch.tensor(each).norm(dim=0).tolist(), float(torch.tensor(together).norm())


class Finished:
    """A finished run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.directory = ModelDirectory(path)
        config = stored_config(self.directory)
        resolved = resolve(config.model)
        self.plan = plan(config, resolved.recommended)
        if self.plan.method.carrier != "lora" or self.plan.method.storage_grows:
            raise NloraError(f"{path}: {config.method} does not make one model of LoRA adapters")
        self.updates = self.directory.update_paths()
        if not self.updates:
            raise NloraError(f"{path} has learned nothing yet")
        self.tasks = learned_tasks(self.directory)
        backbone = load(resolved, weights_dtype(self.plan))
        self.learner = Learner(self.plan, backbone, self.directory, self.tasks, Lines())

    def row(self, label: str, scales: Sequence[float]) -> dict[str, Any]:
        """What the model answers with its updates scaled."""
        with TemporaryDirectory() as folder:
            copies = scaled(self.updates, scales, Path(folder))
            each, together = sizes(copies)
            with self.learner.carrier.standing(copies):
                answers = self.learner.evaluate(self.tasks)
        found = {task: accuracy(rows) for task, rows in answers.items()}
        return {
            "run": self.path.name,
            "method": self.plan.config.method,
            "seed": self.plan.config.seed,
            "label": label,
            "scales": list(scales),
            "accuracy": found,
            "average_accuracy": fmean(found.values()),
            "frobenius": each,
            "frobenius_of_sum": together,
            "recorded": self.directory.stages()[-1].accuracy,
        }


def rows(path: Path, scales: Sequence[float], beside: Path | None) -> Iterator[dict[str, Any]]:
    """A row per scale; then those of the run beside it, and of this one at the sizes there."""
    run = Finished(path)
    other = Finished(beside) if beside is not None else None
    stages = [[t.name for t in r.tasks] + [len(r.updates)] for r in (run, other or run)]
    if stages[0] != stages[1]:
        raise NloraError(f"{beside} and {path} have not learned the same tasks in a row")
    for scale in scales:
        yield run.row(f"{scale:g}", [scale] * len(run.updates))
    if other is not None:
        yield other.row("1", [1.0] * len(other.updates))
        own, theirs = (sizes(r.updates)[0] for r in (run, other))
        matching = [b / a if a else 0.0 for a, b in zip(own, theirs, strict=True)]
        yield run.row(f"size of {other.path.name}", matching)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="MODEL_DIR")
    parser.add_argument("--scales", default="1,0.7,0.5,0.3")
    parser.add_argument("--beside", type=Path, metavar="MODEL_DIR")
    parser.add_argument("--out", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    try:
        scales = [float(scale) for scale in options.scales.split(",")]
    except ValueError:
        parser.error(f"--scales takes numbers with commas between them, not '{options.scales}'")
    try:
        for row in rows(options.run, scales, options.beside):
            line = json.dumps(row, ensure_ascii=False)
            print(line, flush=True)
            if options.out is not None:
                options.out.parent.mkdir(parents=True, exist_ok=True)
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
    except NloraError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
