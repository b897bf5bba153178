"""What settings do to an update and to the task, on `dev` and never on test.

    python benchmarks/on_dev.py --out runs/strength --method n-lora --set max_text_tokens=72 \\
        --vary penalty=none,l1 --vary l1=0.01,0.1,1 [--model smollm2-135m] [--stream A,B]

A cell is one value of each varied setting, on every task of the stream in turn. Its row goes to
OUT/rows.jsonl: after each stage the dev loss and accuracy of every task so far, the task's training
loss over the last quarter, and of a LoRA update ‖ΔW‖_F over all matrices, the mean of
GSR = ‖ΔW‖₁/(√(mn)·‖ΔW‖_F) over the matrices that are not 0, and the share of entries of ΔW that are
exactly 0. Finished cells are skipped and a stopped one goes on after its last stage, so this can
run in the background.
"""

import argparse
import itertools
import json
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nlora.adapters.peft_files import WEIGHTS, read_adapter
from nlora.api.watching import Lines
from nlora.backbones.load import load
from nlora.continual.building import make_adapter, make_encoder, weights_dtype
from nlora.continual.learning import run
from nlora.data.streams import load_stream
from nlora.data.task import Example, TaskData, sample
from nlora.lowrank.factors import Factors
from nlora.methods.context import Context, Stage
from nlora.plan.config import RunConfig, parse_overrides
from nlora.plan.resolve import Plan, resolve
from nlora.store.directory import ModelDirectory


def geometry(folder: Path) -> dict[str, float]:
    """Size, density and exact zeros of a saved adapter; nothing of another update."""
    if not (folder / WEIGHTS).is_file():
        return {}
    adapter = read_adapter(folder)
    squares, densities, zeros, total = 0.0, [], 0, 0
    for module in adapter.shapes:
        A, B, scaling = adapter.factors(module)
        delta = Factors(A.float(), B.float(), scaling).delta()
        norm = float(delta.norm())
        squares += norm**2
        zeros += int((delta == 0).sum())
        total += delta.numel()
        if norm > 0:
            densities.append(float(delta.abs().sum()) / (delta.numel() ** 0.5 * norm))
    return {
        "frobenius": squares**0.5,
        "gsr": sum(densities) / len(densities) if densities else 0.0,
        "zero_entries": zeros / total,
    }


@torch.inference_mode()
def losses(
    resolved: Plan, updates: Sequence[Path], tasks: dict[str, Sequence[Example]]
) -> dict[str, float]:
    """The mean loss per answer token of each task's examples, with these updates active."""
    backbone = load(resolved.base, weights_dtype(resolved))
    adapter = make_adapter(resolved, backbone)
    adapter.load(updates)
    ctx = Context(
        stage=Stage(0, "", (), seed=0),
        adapter=adapter,
        encoder=make_encoder(resolved, backbone),
        stream=(),
        after=lambda stage: nullcontext(),
        stage_of=lambda task: None,
    )
    found = {}
    for name, examples in tasks.items():
        tokens = sum(len(row.answer) for row in ctx.encoder.all(examples))
        found[name] = -sum(ctx.score(examples)) / tokens
    return found


def measure(config: RunConfig, folder: Path, stream: Sequence[TaskData]) -> list[dict[str, Any]]:
    """Run one cell, or what is left of it; what each stage left."""
    on_dev = [replace(task, test=task.dev) for task in stream]
    run(config, folder, Lines(), stream=on_dev)
    directory = ModelDirectory(folder)
    stored = directory.config()["settings"]
    resolved = resolve(config.model_copy(update={"settings": stored}), on_dev)
    dev = {task.name: sample(task.test, config.max_eval, seed=0) for task in on_dev}
    rows = []
    for k, record in enumerate(directory.stages(), start=1):
        path = directory.stage_path(record)
        seen = {task.name: dev[task.name] for task in on_dev[:k]}
        steps = (path / "losses.jsonl").read_text("utf-8").splitlines()
        last = [json.loads(step)["task"] for step in steps][-max(len(steps) // 4, 1) :]
        rows.append(
            {
                "task": record.name,
                **geometry(path / "update"),
                "lambda": record.notes.get("l1", {}).get("lambda"),
                "train_loss_last_quarter": sum(last) / len(last),
                "dev_loss": losses(resolved, directory.update_paths(k), seen),
                "dev_accuracy": record.accuracy,
                "seconds": sum(record.seconds.values()),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--method", required=True)
    parser.add_argument("--vary", action="append", required=True, metavar="KEY=V1,V2,…")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--stream", default="agnews,dbpedia")
    parser.add_argument("--data", type=Path, default=os.environ.get("NLORA_DATA"))
    parser.add_argument("--max-train", type=int, default=384)
    parser.add_argument("--max-eval", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows = options.out / "rows.jsonl"
    lines = rows.read_text("utf-8").splitlines() if rows.exists() else []
    finished = [json.loads(line)["cell"] for line in lines]
    stream = load_stream(options.stream, Path(options.data) if options.data else None)
    keys = [text.split("=", 1)[0] for text in options.vary]
    values = [text.split("=", 1)[1].split(",") for text in options.vary]
    for chosen in itertools.product(*values):
        varied = [f"{key}={value}" for key, value in zip(keys, chosen, strict=True)]
        config = RunConfig(
            model=options.model,
            method=options.method,
            stream=options.stream,
            data=str(options.data) if options.data else None,
            seed=options.seed,
            max_train=options.max_train,
            max_eval=options.max_eval,
            settings=parse_overrides([*options.overrides, *varied]),
        )
        cell = {
            **config.model_dump(exclude={"data", "evaluate", "plugin", "model"}),
            "model": options.model,
        }
        if cell in finished:
            continue
        folder = options.out / "-".join([options.method, *varied, f"seed-{options.seed}"])
        row = json.dumps({"cell": cell, "stages": measure(config, folder, stream)})
        with rows.open("a", encoding="utf-8") as file:
            file.write(row + "\n")
        print(row, flush=True)


if __name__ == "__main__":
    main()
