"""Checkpoints of a training run: whole or not at all, and the finished model."""

import json
import os
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from training_tools.tiny_t5.network import Trainee

POINTER = "latest.json"
_TIED = ("model.encoder.embed_tokens.", "model.decoder.embed_tokens.", "model.lm_head.")


def replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file beside its place, and move it there when it is whole."""
    partial = path.with_name(f".{path.name}.partial")
    write(partial)
    os.replace(partial, path)


def save(
    out: Path,
    trainee: Trainee,
    optimizer: torch.optim.Optimizer,
    vectors: Tensor,
    state: dict[str, int],
) -> None:
    """One folder per step, and a pointer that is replaced when the folder is whole."""
    folder = out / f"checkpoint-{state['step']}"
    folder.mkdir(exist_ok=True)
    weights = {k: v for k, v in trainee.state_dict().items() if not k.startswith(_TIED)}
    save_file({**weights, "vectors": vectors}, folder / "state.safetensors")
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    text = json.dumps({"folder": folder.name, **state}) + "\n"
    replace(out / POINTER, lambda path: path.write_text(text))
    for old in out.glob("checkpoint-*"):
        if old != folder:
            shutil.rmtree(old)


def restore(
    out: Path, trainee: Trainee, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Any], Tensor] | None:
    """What `save` was given last, loaded into the trainee and the optimiser; None if nothing was.

    Raises SystemExit for a checkpoint of another model.
    """
    if not (out / POINTER).is_file():
        return None
    state = json.loads((out / POINTER).read_text())
    folder = out / state["folder"]
    tensors = load_file(folder / "state.safetensors")
    vectors = tensors.pop("vectors")
    missing, unexpected = trainee.load_state_dict(tensors, strict=False)
    if unexpected or not all(name.startswith(_TIED) for name in missing):
        raise SystemExit(f"{folder} holds another model; choose another --out")
    optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True))
    return state, vectors


def export(folder: Path, trainee: Trainee, tokenizer: Any) -> None:
    """The model in half precision (bfloat16) with its tokenizer, as `from_pretrained` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    deepcopy(trainee.model).bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
