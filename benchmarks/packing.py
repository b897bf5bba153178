"""What shared prefixes and rows that several examples share are worth in training, on real texts.

    python benchmarks/packing.py [--data DIR] [--tasks agnews,dbpedia,…] [--batch 16] [--steps 4]
                                 [--layers 4] [--pairs 3] [--cut TOKENS]

The model has the shape of SmolLM2-135M with so many layers, random fp32 weights, and that model's
tokenizer. Each task is trained alone, in batches by length, and all together, in batches as they
come, as `mtl` and `replay` have them; padded or packed, with what prompts begin with read once
for each task of a batch, or with each prompt. Figures are ratios of processor seconds to those of
padded rows that are read whole, medians over interleaved turns; `tokens` is how many of the tokens
that these compute the others do.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
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


def compared(name: str, data: TaskData, options: argparse.Namespace) -> dict[str, Any]:
    ways = {
        f"{'packed' if packing else 'padded'}, prefix {prefix}": (packing, prefix)
        for prefix in ("auto", "off")
        for packing in (False, True)
    }
    cut = {} if options.cut is None else {"max_text_tokens": options.cut}
    sides = {
        way: Side(data, options, packing=packing, shared_prefix=prefix, **cut)
        for way, (packing, prefix) in ways.items()
    }
    for side in sides.values():
        side.seconds()
    tokens = {way: side.tokens for way, side in sides.items()}
    turns = [{way: side.seconds() for way, side in sides.items()} for _ in range(options.pairs)]
    whole = "padded, prefix off"
    return {
        "tasks": name,
        "cut": options.cut,
        "times_as_fast": {
            way: round(statistics.median(turn[whole] / turn[way] for turn in turns), 3)
            for way in ways
        },
        "tokens": {way: round(count / tokens[whole], 3) for way, count in tokens.items()},
        "seconds_per_step": round(
            statistics.median(turn[whole] for turn in turns) / options.steps, 3
        ),
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
    parser.add_argument("--cut", type=int, help="tokens of a text, at most")
    options = parser.parse_args()
    if options.data is None:
        parser.error("--data or NLORA_DATA is needed")
    names = options.tasks.split(",")
    tasks = [load_stream(name, Path(options.data))[0] for name in names]
    asked = dict(zip(names, tasks, strict=True))
    for name, data in {**asked, "all": mixed(tasks, options.batch * options.steps)}.items():
        print(json.dumps(compared(name, data, options)), flush=True)


if __name__ == "__main__":
    main()
