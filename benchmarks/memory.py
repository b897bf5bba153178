"""What `--dry-run` estimates of the memory of training, beside what a process grows by.

    python benchmarks/memory.py [--model tiny-t5] [--data DIR] [--task agnews] [--batch 32]
                                [--steps 4] [--set NAME=VALUE …]

One process trains `inc-lora` of rank 8 in fp32 for so many steps; `measured` is its growth from the
loaded model to its peak (Linux, CPU), `estimated` the same of the estimate, `tensors` that without
the gaps of the heap, in MB.
"""

import argparse
import json
import os
import warnings
from pathlib import Path

import torch
import yaml

from nlora.continual.preview import preview
from nlora.data.streams import load_stream
from nlora.machine import peak_memory
from sides import BATCH, Ours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="tiny-t5")
    parser.add_argument("--data", default=os.environ.get("NLORA_DATA"))
    parser.add_argument("--task", default="agnews")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--set", nargs="*", default=[])
    options = parser.parse_args()
    if options.data is None:
        parser.error("--data or NLORA_DATA is needed")
    warnings.filterwarnings("ignore")
    asked = {name: yaml.safe_load(value) for name, value in (s.split("=") for s in options.set)}
    settings = {"batch_size": options.batch, "epochs": 1, "rank": 8, **asked}
    data = load_stream(options.task, Path(options.data))[0]
    count = options.batch * options.steps // BATCH
    ours = Ours("inc-lora", options.model, torch.float32, data, count, **settings)
    for parameter in ours.backbone.model.parameters():
        parameter.sum()  # or a mapped file would be read in training
    Path("/proc/self/clear_refs").write_text("5", "utf-8")  # the peak begins here
    loaded = peak_memory()
    ours.train()
    measured = peak_memory() - loaded
    memory = preview(ours.plan).memory
    assert memory is not None
    tensors = memory.optimizer + memory.step
    estimated = tensors + memory.gaps
    sizes = {"measured": measured, "estimated": estimated, "tensors": tensors}
    row = {
        "model": options.model,
        "batch": options.batch,
        "set": options.set,
        **{name: round(size / 1e6) for name, size in sizes.items()},
        "ratio": round(estimated / measured, 2),
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
