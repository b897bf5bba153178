"""What the methods' tests share: a small run, and a look at the stages that it left."""

import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from nlora.continual.learning import run
from nlora.store.directory import ModelDirectory, StageRecord
from tests import runs, tiny

TASKS = ("colour", "size", "shape")


def learn(
    model: Path | str,
    out: Path,
    method: str,
    tasks: tuple[str, ...] = TASKS,
    count: int = 12,
    plugin: str | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Learn small tasks with three labels, `count` examples each; the results."""
    config = runs.config(model, None, {**runs.FAST, **settings}, method=method, plugin=plugin)
    return run(config, out, stream=[tiny.task(name, count) for name in tasks])


def stages(out: Path) -> list[StageRecord]:
    """The records of the committed stages."""
    return ModelDirectory(out).stages()


def losses(out: Path, stage: int) -> list[dict[str, float]]:
    """The terms of each optimiser step of stage 1, 2, …"""
    return runs.read_jsonl(_folder(out, stage) / "losses.jsonl")


def answers(out: Path, stage: int, task: str) -> list[str]:
    """What the model answered to the test examples of a task after a stage."""
    rows = runs.read_jsonl(_folder(out, stage) / "predictions.jsonl")
    return [row["text"] for row in rows if row["task"] == task]


def update(out: Path, stage: int) -> dict[str, Tensor]:
    """The tensors that a stage saved."""
    paths = sorted((_folder(out, stage) / "update").glob("*.safetensors"))
    return {name: tensor for path in paths for name, tensor in load_file(path).items()}


def state(out: Path, stage: int) -> dict[str, Tensor]:
    """The tensors that the method remembered after a stage."""
    path = _folder(out, stage) / "state" / "state.safetensors"
    return load_file(path) if path.is_file() else {}


def first_stages(out: Path, count: int, to: Path) -> Path:
    """A copy of a directory as it was when so many stages were committed."""
    shutil.copytree(out, to)
    for record in stages(out)[count:]:
        shutil.rmtree(ModelDirectory(to).stage_path(record))
    (to / "results.json").unlink()
    return to


def same_bits(one: Path, other: Path) -> bool:
    """Whether two runs ended every stage with the same tensors, losses and answers."""
    count = len(stages(one))
    if len(stages(other)) != count:
        return False
    for stage in range(1, count + 1):
        for name in ("losses.jsonl", "predictions.jsonl"):
            pair = [(_folder(out, stage) / name).read_bytes() for out in (one, other)]
            if pair[0] != pair[1]:
                return False
        ours, theirs = update(one, stage), update(other, stage)
        if ours.keys() != theirs.keys() or any(not ours[n].equal(theirs[n]) for n in ours):
            return False
    return True


def _folder(out: Path, stage: int) -> Path:
    [folder] = (out / "stages").glob(f"{stage:03d}-*")
    return folder
