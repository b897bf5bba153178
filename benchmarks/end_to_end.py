"""How fast one stage is, as ratios to a minimal Transformers + PEFT script, measured in one run.

    python benchmarks/end_to_end.py [--model smollm2-135m] [--data DIR] [--pairs 3] [--steps 8]

The minimal script is a Transformers `Trainer` over a PEFT model with the full vocabulary
projection, on the same batches in the same order and the same dtype; its evaluation is
`generate(max_new_tokens=50)` in file order, padded to the longest prompt. Each ratio is the median
over interleaved pairs, so that a machine that slows down slows both. Nothing else should run.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, PrinterCallback, Trainer, TrainingArguments

from nlora.data.batches import Collator, LengthGrouped
from nlora.data.streams import load_stream
from nlora.data.task import TaskData, sample
from nlora.evaluation.decode import predict
from nlora.methods.base import Stage
from nlora.models.backbone import bf16_is_faster, load
from nlora.models.catalog import resolve
from nlora.training.config import RunConfig, RunSettings, plan
from nlora.training.learner import make_carrier, make_encoder
from nlora.training.progress import Silent
from nlora.training.trainer import train

BATCH = 16


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


class Ours:
    """One stage of a method, as `nlora run` trains it."""

    def __init__(self, method: str, model: str, dtype: torch.dtype, data: TaskData, steps: int):
        precision = "bf16" if dtype == torch.bfloat16 else "fp32"
        config = RunConfig(model=model, method=method, settings={"precision": precision})
        self.plan = plan(config)
        self.backbone = load(resolve(model), dtype)
        self.carrier = make_carrier(self.plan, self.backbone)
        self.encoder = make_encoder(self.plan, self.backbone)
        self.carrier.begin()
        self.rows = [self.encoder(e) for e in data.train[: BATCH * steps]]
        self.stage = Stage(1, data.name, (data,), seed=1, steps=steps)

    def train(self) -> None:
        run: RunSettings = self.plan.run
        penalties = self.plan.method.penalties(self, self.stage)  # type: ignore[arg-type]
        pad_id = self.backbone.tokenizer.pad_token_id
        collator = Collator(pad_id, self.backbone.encoder_decoder, share_prefix=True)
        train(
            self.plan.method,
            self.carrier.model,
            self.stage,
            self.rows,
            penalties,
            run,
            collator,
            False,
            Silent(),
            Path("unused"),
        )


class Minimal:
    """What a user of Transformers and PEFT would write, on the batches of `Ours`."""

    def __init__(self, ours: Ours, model: str, dtype: torch.dtype):
        base = AutoModelForCausalLM.from_pretrained(resolve(model).target, dtype=dtype)
        config = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=32, lora_dropout=0.1)
        self.model = get_peft_model(base, config)
        self.rows = [ours.rows[i] for i in LengthGrouped(ours.rows, BATCH, seed=1)]
        self.pad_id = ours.backbone.tokenizer.pad_token_id
        self.tokenizer = ours.backbone.tokenizer

    def train(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=BATCH,
                learning_rate=1e-3,
                lr_scheduler_type="constant",
                train_sampling_strategy="sequential",
                use_cpu=not torch.cuda.is_available(),
                save_strategy="no",
                logging_steps=1,
                disable_tqdm=True,
                remove_unused_columns=False,
                num_train_epochs=1,
            )
            trainer = Trainer(
                model=self.model,
                args=arguments,
                train_dataset=self.rows,  # type: ignore[arg-type]
                data_collator=Collator(self.pad_id, encoder_decoder=False),
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()

    @torch.inference_mode()
    def evaluate(self, prompts: list[list[int]]) -> list[str]:
        self.model.eval()
        longest = max(len(p) for p in prompts)
        texts: list[str] = []
        for start in range(0, len(prompts), BATCH):
            rows = prompts[start : start + BATCH]
            missing = [longest - len(p) for p in rows]
            ids = [[self.pad_id] * n + p for n, p in zip(missing, rows, strict=True)]
            mask = [[0] * n + [1] * len(p) for n, p in zip(missing, rows, strict=True)]
            out = self.model.generate(
                input_ids=torch.tensor(ids),
                attention_mask=torch.tensor(mask),
                max_new_tokens=50,
                do_sample=False,
                pad_token_id=self.pad_id,
            )
            texts += self.tokenizer.batch_decode(out[:, longest:], skip_special_tokens=True)
        return texts


def measure(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one task."""
    dtype = torch.bfloat16 if bf16_is_faster() else torch.float32
    data = load_stream(name, Path(options.data))[0]
    tests = sample(data.test, options.tests, seed=0)
    ours = Ours("inc-lora", options.model, dtype, data, options.steps)
    sparse = Ours("n-lora", options.model, dtype, data, options.steps)
    minimal = Minimal(ours, options.model, dtype)
    prompts = [ours.encoder.prompt_ids(e.task, e.text)[0] for e in tests]

    def evaluation(kind: str) -> dict[str, Any]:
        mine = seconds(lambda: predict(ours.carrier.model, ours.encoder, tests))
        plain = seconds(lambda: minimal.evaluate(prompts))
        return {
            "task": name,
            "what": f"evaluation, {kind} model",
            "minimal_per_ours": plain / mine,
            "ours_seconds": mine,
            "minimal_seconds": plain,
        }

    untrained = evaluation("untrained")
    ours.train()  # warm up; the adapters go on from here
    minimal.train()
    times = [
        (seconds(ours.train), seconds(minimal.train), seconds(sparse.train))
        for _ in range(options.pairs)
    ]
    examples = BATCH * options.steps
    training = {
        "task": name,
        "what": "training",
        "minimal_per_ours": statistics.median(plain / mine for mine, plain, _ in times),
        "inc_lora_per_n_lora": statistics.median(mine / l1 for mine, _, l1 in times),
        "ours_examples_per_second": examples / statistics.median(mine for mine, _, _ in times),
        "minimal_examples_per_second": examples / statistics.median(plain for _, plain, _ in times),
    }
    return [untrained, training, evaluation("trained")]


STARTUP = """
import sys, time
from pathlib import Path
from nlora.training.config import RunConfig
from nlora.training.progress import Silent
from nlora.training.run import run

class UntilTraining(Silent):
    def start(self, title, total):
        print(time.time())
        sys.exit()

model, data, out = sys.argv[1:]
config = RunConfig(model=model, method="n-lora", stream="agnews", data=data)
run(config, Path(out), UntilTraining())
"""


def startup(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds from starting Python to the first training step, all of agnews encoded."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", STARTUP, options.model, str(options.data), folder + "/m"]
        started = time.time()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {"task": "agnews", "what": "start-up", "seconds": float(done.stdout) - started}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--data", type=Path, default=os.environ.get("NLORA_DATA"))
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--tests", type=int, default=48)
    options = parser.parse_args()
    if options.data is None:
        parser.error("--data or NLORA_DATA is needed")
    warnings.filterwarnings("ignore")
    show(startup(options))
    for name in ("agnews", "dbpedia"):
        for row in measure(name, options):
            show(row)


def show(row: dict[str, Any]) -> None:
    rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}
    print(json.dumps(rounded), flush=True)


if __name__ == "__main__":
    main()
