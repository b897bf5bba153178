"""Choose a setting on `dev`: one run per value, evaluated on the dev split and never on test.

    python benchmarks/sweep.py --method replay --key learning_rate --values 1e-5,3e-5,1e-4 \\
        --stream agnews,dbpedia --max-train 384 --max-eval 120 --out runs/sweep [--set K=V]…

Each value is a model directory below --out, so a sweep that was stopped goes on where it was.
Prints one JSON line per value: accuracies, forgetting, and the size and density of the updates.
"""

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from nlora.cli.console import Lines
from nlora.data.streams import load_stream
from nlora.store.directory import ModelDirectory
from nlora.training.config import RunConfig, parse_overrides
from nlora.training.run import run


def geometry(path: Path, scaling: float) -> dict[str, float]:
    """‖ΔW‖_F over all matrices, and the mean GSR ‖ΔW‖₁/(√(mn)·‖ΔW‖_F), of a LoRA update."""
    tensors = load_file(path / "adapter_model.safetensors")
    squares, densities = 0.0, []
    for name, A in tensors.items():
        if ".lora_A." in name:
            delta = scaling * tensors[name.replace(".lora_A.", ".lora_B.")] @ A  # (out, in)
            norm = float(delta.norm())
            squares += norm**2
            densities.append(float(delta.abs().sum()) / (delta.numel() ** 0.5 * norm))
    return {"frobenius": squares**0.5, "gsr": sum(densities) / len(densities)}


def describe(folder: Path) -> dict[str, Any]:
    """What a finished run says of itself, per stage."""
    directory = ModelDirectory(folder)
    settings = directory.config()["settings"]
    stages = []
    for record in directory.stages():
        path = directory.stage_path(record)
        losses = [json.loads(line) for line in (path / "losses.jsonl").read_text().splitlines()]
        last = losses[-max(len(losses) // 4, 1) :]
        row: dict[str, Any] = {
            "task": record.name,
            "task_loss_last_quarter": sum(step["task"] for step in last) / len(last),
            "notes": record.notes,
        }
        if (path / "update" / "adapter_model.safetensors").is_file():
            row |= geometry(path / "update", settings["alpha"] / settings["rank"])
        stages.append(row)
    keys = ("accuracy_matrix", "average_accuracy", "learning_accuracy", "forgetting", "seconds")
    results = directory.results()
    return {**{key: results[key] for key in keys}, "stages": stages}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--values", required=True)
    parser.add_argument("--stream", default="agnews,dbpedia")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--data", type=Path, default=os.environ.get("NLORA_DATA"))
    parser.add_argument("--max-train", type=int, default=384)
    parser.add_argument("--max-eval", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    stream = load_stream(options.stream, options.data and Path(options.data))
    on_dev = [replace(data, test=data.dev) for data in stream]
    for value in options.values.split(","):
        settings = parse_overrides([*options.overrides, f"{options.key}={value}"])
        config = RunConfig(
            model=options.model,
            method=options.method,
            stream=options.stream,
            data=str(options.data) if options.data else None,
            seed=options.seed,
            max_train=options.max_train,
            max_eval=options.max_eval,
            settings=settings,
        )
        folder = options.out / f"{options.method}-{options.key}-{value}"
        run(config, folder, Lines(), stream=on_dev)
        print(json.dumps({options.key: value, **describe(folder)}), flush=True)


if __name__ == "__main__":
    main()
