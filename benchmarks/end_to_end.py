"""How fast one stage is, as ratios to a minimal Transformers + PEFT script, measured in one run.

    python benchmarks/end_to_end.py [--model smollm2-135m] [--data DIR] [--pairs 3] [--steps 8]
                                    [--tests 128] [--only training,evaluation,memory,…]

The minimal script (`sides.Minimal`) is a Transformers `Trainer` over a PEFT model with the full
vocabulary projection, on the same batches in the same order and the same dtype; its evaluation is
`generate(max_new_tokens=50)` in file order, padded to the longest prompt. Each ratio is the median
over interleaved pairs, so that a machine that slows down slows both; n-lora against inc-lora (three
times as many pairs) and stage 15 against stage 1 likewise. Peak memory is that of processes that do
nothing else. The floor is the arithmetic of the matrix products (each token through every weight
but the embeddings, twice in training, and each answer token through the vocabulary) at the rate
that this machine multiplies matrices of that shape. Nothing else should run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from nlora.backbones.hardware import bf16_is_faster
from nlora.data.batches import TrainingOrder, common_prefix
from nlora.data.streams import load_stream
from nlora.data.task import TaskData, sample
from sides import BATCH, Minimal, Ours

TASKS = ("agnews", "dbpedia")


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def interleaved(pairs: int, *works: Callable[[], Any]) -> list[tuple[float, ...]]:
    """Seconds of each work, in turns; the first turn warms up and does not count."""
    for work in works:
        work()
    return [tuple(seconds(work) for work in works) for _ in range(pairs)]


def median_ratio(times: list[tuple[float, ...]], one: int, other: int) -> float:
    return statistics.median(t[one] / t[other] for t in times)


def median(times: list[tuple[float, ...]], which: int) -> float:
    return statistics.median(t[which] for t in times)


class Floor:
    """Seconds that the matrix products alone must take."""

    def __init__(self, ours: Ours) -> None:
        model = ours.backbone.model
        embeddings = model.get_input_embeddings().weight
        self.vocabulary = embeddings.numel()
        self.inner = sum(p.numel() for n, p in model.named_parameters() if p.ndim == 2)
        tied = model.config.tie_word_embeddings
        self.inner -= self.vocabulary * (1 if tied else 2)
        width = embeddings.shape[1]
        x = torch.randn(1024, width, dtype=embeddings.dtype, device=embeddings.device)
        w = torch.randn(4 * width, width, dtype=embeddings.dtype, device=embeddings.device)
        times = interleaved(50, lambda: torch.nn.functional.linear(x, w))
        self.rate = 2 * 1024 * w.numel() / median(times, 0)

    def training(self, ours: Ours) -> float:
        rows = [ours.rows[i] for i in TrainingOrder(ours.rows, BATCH, seed=1)]
        total = 0
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            shared = common_prefix([row.prompt for row in batch])
            tokens = shared + sum(len(row) - shared for row in batch)
            answers = sum(len(row.answer) for row in batch)
            total += 4 * (tokens * self.inner + answers * self.vocabulary)
        return total / self.rate

    def evaluation(self, prompts: list[list[int]]) -> float:
        shared = common_prefix(prompts)
        tokens = shared + sum(len(p) - shared for p in prompts)
        return 2 * (tokens * self.inner + len(prompts) * self.vocabulary) / self.rate


def training(name: str, data: TaskData, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    ours = Ours("inc-lora", options.model, options.dtype, data, options.steps)
    minimal = Minimal(options.model, options.dtype, data, options.steps)
    times = interleaved(options.pairs, ours.train, minimal.train)
    examples = BATCH * options.steps
    yield {
        "task": name,
        "what": "training",
        "minimal_per_ours": median_ratio(times, 1, 0),
        "ours_examples_per_second": examples / median(times, 0),
        "minimal_examples_per_second": examples / median(times, 1),
        "floor_seconds_per_step": Floor(ours).training(ours) / options.steps,
        "ours_seconds_per_step": median(times, 0) / options.steps,
    }


def penalty(name: str, data: TaskData, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Training with n-lora against inc-lora; the penalty is active from the first step on."""
    plain = Ours("inc-lora", options.model, options.dtype, data, options.steps)
    weight = {"l1_unit": "sum", "l1": 1e-6}
    sparse = Ours("n-lora", options.model, options.dtype, data, options.steps, **weight)
    times = interleaved(3 * options.pairs, plain.train, sparse.train)
    yield {"task": name, "what": "inc-lora per n-lora", "ratio": median_ratio(times, 0, 1)}


def evaluation(name: str, data: TaskData, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    tests = sample(data.test, options.tests, seed=0)
    ours = Ours("inc-lora", options.model, options.dtype, data, options.steps)
    minimal = Minimal(options.model, options.dtype, data, options.steps)
    prompts = [ours.encoder.prompt_ids(e.task, e.text)[0] for e in tests]
    floor = Floor(ours).evaluation(prompts)
    for kind in ("untrained", "trained"):
        if kind == "trained":
            for _ in range(2):
                ours.train()
                minimal.train()
        works = (lambda: ours.evaluate(tests), lambda: minimal.evaluate(tests))
        times = interleaved(options.pairs, *works)
        yield {
            "task": name,
            "what": f"evaluation, {kind} model",
            "minimal_per_ours": median_ratio(times, 1, 0),
            "ours_seconds": median(times, 0),
            "minimal_seconds": median(times, 1),
            "floor_seconds": floor,
        }


def stages(name: str, data: TaskData, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Steps at stage 15 against steps at stage 1, on an fp32 base."""
    first, last = (
        Ours("inc-lora", options.model, torch.float32, data, options.steps) for _ in range(2)
    )
    for _ in range(14):
        with torch.no_grad():
            for factors in last.adapter.factors().values():
                factors.B.normal_(std=0.01)
        last.adapter.begin()
    times = interleaved(options.pairs, first.train, last.train)
    yield {"task": name, "what": "stage 15 per stage 1, fp32", "ratio": median_ratio(times, 1, 0)}


def memory(name: str, data: TaskData, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Peak memory of a process that trains, and of one that evaluates, for both sides."""
    peaks = {}
    for phase in ("train", "evaluate"):
        for side in ("ours", "minimal"):
            command = [sys.executable, str(Path(__file__).with_name("sides.py")), side, phase]
            command += [options.model, str(options.data), name, str(options.steps)]
            command += [str(options.tests)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            peaks[f"{side}_{phase}_gigabytes"] = float(done.stdout.splitlines()[-1])
    yield {"task": name, "what": "peak memory", **peaks}


STARTUP = """
import sys, time
from pathlib import Path
from nlora.plan.config import RunConfig
from nlora.progress import NoProgress
from nlora.continual.learning import run

class UntilTraining(NoProgress):
    def start(self, title, total):
        print(time.time())
        sys.exit()

model, data, task, out = sys.argv[1:]
config = RunConfig(model=model, method="n-lora", stream=task, data=data)
run(config, Path(out), UntilTraining())
"""


def start_up(name: str, data: TaskData, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Seconds from starting Python to the first training step, all examples encoded."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", STARTUP, options.model, str(options.data), name]
        started = time.time()
        done = subprocess.run([*command, folder + "/m"], check=True, capture_output=True, text=True)
    yield {"task": name, "what": "start-up", "seconds": float(done.stdout) - started}


PARTS = {
    "start-up": start_up,
    "training": training,
    "penalty": penalty,
    "evaluation": evaluation,
    "stages": stages,
    "memory": memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--data", type=Path, default=os.environ.get("NLORA_DATA"))
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--tests", type=int, default=128)
    parser.add_argument("--only", default=",".join(PARTS), help=", ".join(PARTS))
    options = parser.parse_args()
    if options.data is None:
        parser.error("--data or NLORA_DATA is needed")
    options.dtype = torch.bfloat16 if bf16_is_faster() else torch.float32
    warnings.filterwarnings("ignore")
    for part in options.only.split(","):
        for name in TASKS:
            for row in PARTS[part](name, load_stream(name, Path(options.data))[0], options):
                rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}
                print(json.dumps(rounded), flush=True)


if __name__ == "__main__":
    main()
