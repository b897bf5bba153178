"""What rows that several examples share are worth in training, on real texts.

    python benchmarks/packing.py [--data DIR] [--tasks agnews,dbpedia,…] [--batch 16] [--steps 4]
                                 [--layers 4] [--pairs 3]

The model has the shape of SmolLM2-135M with so many layers, random fp32 weights, and that model's
tokenizer. Each task is trained alone, in batches by length, and all together, in batches as they
come, as `mtl` and `replay` have them; with the prefix that a batch shares read once, and without.
Figures are ratios of processor seconds, padded per packed, medians over interleaved turns; `tokens`
is how many of the tokens that the padded batches compute the packed ones do.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from nlora.backbones.catalog import find
from nlora.backbones.load import Backbone, load
from nlora.data.streams import load_stream
from nlora.data.task import TaskData
from sides import BATCH, Ours


def backbone(layers: int) -> Backbone:
    """A random model of the shape of SmolLM2-135M."""
    found = load(find("smollm2-135m"), torch.float32, weights=False)
    torch.manual_seed(0)
    config = LlamaConfig(**{**found.model.config.to_dict(), "num_hidden_layers": layers})
    found.model = LlamaForCausalLM(config)
    return found


class Side:
    """One way to train, and how many tokens its passes are given."""

    def __init__(self, data: TaskData, options: argparse.Namespace, **settings: Any) -> None:
        asked = {"batch_size": options.batch, "epochs": 1, **settings}
        steps = options.batch * options.steps // BATCH
        made = backbone(options.layers)
        self.ours = Ours("inc-lora", "smollm2-135m", torch.float32, data, steps, made, **asked)
        self.tokens = 0
        made.model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, model: Any, args: Any, kwargs: dict[str, Any]) -> None:
        self.tokens += kwargs["input_ids"].numel()

    def seconds(self) -> float:
        started = time.process_time()
        self.ours.train()
        return time.process_time() - started


def compared(name: str, data: TaskData, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for prefix in ("auto", "off"):
        sides = [
            Side(data, options, packing=packing, shared_prefix=prefix) for packing in (False, True)
        ]
        for side in sides:
            side.seconds()
        padded, packed = (side.tokens for side in sides)
        turns = [[side.seconds() for side in sides] for _ in range(options.pairs)]
        yield {
            "tasks": name,
            "shared_prefix": prefix,
            "padded_per_packed": round(statistics.median(a / b for a, b in turns), 3),
            "tokens": round(packed / padded, 3),
            "seconds_per_step": round(statistics.median(b for _, b in turns) / options.steps, 3),
        }


def mixed(tasks: Sequence[TaskData], count: int) -> TaskData:
    """As many examples of each, one after another."""
    each = -(-count // len(tasks))
    rows = [row for rows in zip(*(t.train[:each] for t in tasks), strict=True) for row in rows]
    return replace(tasks[0], train=tuple(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", default=os.environ.get("NLORA_DATA"))
    parser.add_argument("--tasks", default="agnews,dbpedia,amazon")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args()
    if options.data is None:
        parser.error("--data or NLORA_DATA is needed")
    names = options.tasks.split(",")
    tasks = [load_stream(name, Path(options.data))[0] for name in names]
    asked = dict(zip(names, tasks, strict=True))
    for name, data in {**asked, "all": mixed(tasks, options.batch * options.steps)}.items():
        for row in compared(name, data, options):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
