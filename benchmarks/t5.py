"""How fast T5 is beside a plain Seq2SeqTrainer + PEFT script, as ratios measured in one run.

    python benchmarks/t5.py [--shape t5-base] [--data DIR] [--task agnews] [--batch 32] [--steps 2]
                            [--tests 64] [--pairs 3] [--layers N] [--only profile,training,…]

The models have the shapes of T5-base and T5-large (v1.0), random fp32 weights and T5's dropout of
0.1; the texts are real, tokenised by tiny-t5's tokenizer. The plain script is a `Seq2SeqTrainer`
over PEFT's LoRA of rank 8 on q and v with `DataCollatorForSeq2Seq`; it is timed with the batches in
its own, shuffled order, and on the batches of nlora. Its evaluation is `predict` with
`predict_with_generate` and 50 new tokens, which also reads each batch for a loss; so a loop over
`generate` is timed too. A random model says nothing that ends; one that "answers" has a head of its
own that says one label and ends, which costs as much as any other head.

Figures are processor seconds of this process (which other work on the machine changes less than
wall-clock time), medians over interleaved turns. Peak memory is that of processes of their own.
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
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    DataCollatorForSeq2Seq,
    GenerationConfig,
    PrinterCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
)

from nlora.backbones.catalog import find
from nlora.backbones.load import Backbone, load
from nlora.data.batches import TrainingOrder
from nlora.data.streams import load_stream
from nlora.data.task import Example, TaskData, sample
from nlora.machine import peak_memory
from sides import Ours, plain

SHAPES = {
    "t5-base": {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
    "t5-large": {"d_model": 1024, "d_ff": 4096, "num_layers": 24, "num_heads": 16},
    "tiny": {"d_model": 32, "d_ff": 64, "num_layers": 2, "num_heads": 2, "d_kv": 16},
}
RANK = 8


def backbone(shape: str, layers: int | None = None) -> Backbone:
    """A random model of this shape, or of its first layers, with the tokenizer of tiny-t5."""
    found = load(find("tiny-t5"), torch.float32, weights=False)
    torch.manual_seed(0)
    ids = {"vocab_size": 32128, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    sizes: dict[str, Any] = {**SHAPES[shape], **({"num_layers": layers} if layers else {})}
    found.model = T5ForConditionalGeneration(T5Config(**sizes, **ids))
    return found


def answering(found: Backbone, ids: Sequence[int]) -> Backbone:
    """The model with a head of its own that says these tokens one after another.

    The decoder's layers compute as ever and add nothing, so the head knows which token was read.
    """
    model, said = found.model, [0, *ids]
    known = model.shared.weight.detach()
    head = torch.nn.Linear(known.shape[1], known.shape[0], bias=False)
    with torch.no_grad():
        head.weight.zero_()
        for token, after in zip(said, ids, strict=False):
            head.weight[after] = known[token]
        for name, parameter in model.decoder.named_parameters():
            if name.endswith(("o.weight", "wo.weight")):
                parameter.zero_()
    model.lm_head = head.requires_grad_(False)
    return found


class Plain:
    """A Seq2SeqTrainer over a PEFT model, as scripts have it."""

    def __init__(self, found: Backbone, rows: Sequence[Any], batch: int) -> None:
        self.tokenizer = found.tokenizer
        self.rows, self.batch = rows, batch
        lora = LoraConfig(task_type="SEQ_2_SEQ_LM", r=RANK, lora_alpha=32, lora_dropout=0.1)
        self.model = get_peft_model(found.model, lora)

    def _trainer(self, folder: str, rows: Sequence[Any], **more: Any) -> Seq2SeqTrainer:
        arguments = Seq2SeqTrainingArguments(
            **plain(folder),
            per_device_train_batch_size=self.batch,
            per_device_eval_batch_size=self.batch,
            predict_with_generate=True,
            generation_config=GenerationConfig(
                max_new_tokens=50, decoder_start_token_id=0, eos_token_id=1, pad_token_id=0
            ),
            **more,
        )
        trainer = Seq2SeqTrainer(
            model=self.model,
            args=arguments,
            train_dataset=rows,  # type: ignore[arg-type]
            data_collator=DataCollatorForSeq2Seq(self.tokenizer),
            processing_class=self.tokenizer,
        )
        trainer.remove_callback(PrinterCallback)
        return trainer

    def train(self, order: Sequence[int] | None = None) -> None:
        """All steps, shuffled or in this order."""
        kept = {"train_sampling_strategy": "sequential"} if order is not None else {}
        rows = self.rows if order is None else [self.rows[i] for i in order]
        asked = [{"input_ids": r.prompt, "labels": r.answer} for r in rows]
        with tempfile.TemporaryDirectory() as folder:
            self._trainer(folder, asked, **kept).train()

    def predict(self, tests: Sequence[Any]) -> Any:
        """The ids of the answers in file order, and the loss, which the trainer always computes."""
        asked = [{"input_ids": r.prompt, "labels": r.answer} for r in tests]
        with tempfile.TemporaryDirectory() as folder:
            return self._trainer(folder, asked).predict(asked).predictions  # type: ignore[arg-type]

    @torch.inference_mode()
    def generate(self, tests: Sequence[Any]) -> list[Any]:
        """The ids alone, by a loop over `generate`."""
        self.model.eval()
        found = []
        for start in range(0, len(tests), self.batch):
            prompts = [{"input_ids": r.prompt} for r in tests[start : start + self.batch]]
            inputs = self.tokenizer.pad(prompts, return_tensors="pt")
            found.append(self.model.generate(**inputs, max_new_tokens=50, do_sample=False))
        return found


class Sides:
    """Both, of the same weights and examples."""

    def __init__(self, data: TaskData, options: argparse.Namespace, say: Sequence[int] = ()):
        def made() -> Backbone:
            found = backbone(options.shape, options.layers)
            return answering(found, say) if say else found

        self.ours = ours(made(), "inc-lora", data, options)
        self.rows = self.ours.encoder.all(data.train[: options.batch * options.steps])
        self.order = list(TrainingOrder(self.rows, options.batch, seed=1))
        self.plain = Plain(made(), self.rows, options.batch)


def ours(found: Backbone, method: str, data: TaskData, options: argparse.Namespace, **more: Any):
    """nlora's side."""
    fixed = {"batch_size": options.batch, "epochs": 1, "rank": RANK}
    steps = options.batch * options.steps // 16
    return Ours(method, "tiny-t5", torch.float32, data, steps, found, **fixed, **more)


def seconds(work: Callable[[], Any]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def medians(pairs: int, **works: Callable[[], Any]) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of each work and its ratio to the first, in turns; a first turn does not count."""
    for work in works.values():
        work()
    turns = [{name: seconds(work) for name, work in works.items()} for _ in range(pairs)]
    first = next(iter(works))
    times = {name: statistics.median(t[name] for t in turns) for name in works}
    return times, {n: statistics.median(t[n] / t[first] for t in turns) for n in works}


def training(data: TaskData, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    both = Sides(data, options)
    times, ratios = medians(
        options.pairs,
        ours=both.ours.train,
        same=lambda: both.plain.train(both.order),
        shuffled=both.plain.train,
    )
    yield {
        "what": "training",
        "plain_per_ours_shuffled": ratios["shuffled"],
        "plain_per_ours_same_batches": ratios["same"],
        "ours_seconds_per_step": times["ours"] / options.steps,
    }


def penalty(data: TaskData, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """n-lora against inc-lora; the penalty acts from the first step on."""
    plain = ours(backbone(options.shape, options.layers), "inc-lora", data, options)
    weight = {"l1_unit": "sum", "l1": 1e-6}
    sparse = ours(backbone(options.shape, options.layers), "n-lora", data, options, **weight)
    _, ratios = medians(2 * options.pairs + 1, sparse=sparse.train, plain=plain.train)
    yield {"what": "inc-lora per n-lora", "ratio": ratios["plain"]}


def evaluation(data: TaskData, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    tests = sample(data.test, options.tests, seed=0)
    encoder = ours(backbone("tiny"), "inc-lora", data, options).encoder
    labels = data.task.labels
    assert labels is not None
    for kind, say in (("untrained", ()), ("answers", encoder.answer_ids(labels[-1]))):
        both = Sides(data, options, say)
        if say:
            assert {t.lower() for t in both.ours.evaluate(tests[:4])} == {labels[-1].lower()}
        rows = both.ours.encoder.all(tests)
        times, ratios = medians(
            options.pairs,
            ours=lambda both=both: both.ours.evaluate(tests),
            predict=lambda both=both, rows=rows: both.plain.predict(rows),
            generate=lambda both=both, rows=rows: both.plain.generate(rows),
        )
        yield {
            "what": f"evaluation, {kind}",
            "plain_per_ours": ratios["predict"],
            "plain_per_ours_without_loss": ratios["generate"],
            "ours_seconds": times["ours"],
            "floor_seconds": floor(both.ours, rows),
        }


def floor(side: Ours, rows: Sequence[Any]) -> float:
    """Seconds that the products of prompts with the encoder's weights must take."""
    encoder = side.backbone.model.encoder
    weights = sum(
        p.numel() for n, p in encoder.named_parameters() if "lora" not in n and p.ndim > 1
    )
    weights -= encoder.embed_tokens.weight.numel()
    width = encoder.config.d_model
    x, w = torch.randn(1024, width), torch.randn(4 * width, width)
    rate = 2 * 1024 * w.numel() / min(seconds(lambda: x @ w.T) for _ in range(20))
    return 2 * sum(len(r.prompt) for r in rows) * weights / rate


def profile(data: TaskData, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What operations the processor's time of a training step goes to, of both sides."""
    both = Sides(data, options)
    for name, work in (("ours", both.ours.train), ("plain", lambda: both.plain.train(both.order))):
        work()
        activities = [torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities, record_shapes=True) as seen:
            work()
        parts: Counter[str] = Counter()
        for event in seen.key_averages(group_by_input_shape=True):
            parts[kind(event.key, event.input_shapes)] += event.self_cpu_time_total
        total = sum(parts.values())
        shares = {part: round(100 * t / total, 1) for part, t in parts.most_common()}
        yield {"what": f"training step, {name}, per cent", **shares}


def kind(operation: str, shapes: Sequence[Any]) -> str:
    """The part of a step that an operation belongs to."""
    sizes = [s for shape in shapes if isinstance(shape, list) for s in shape]
    name = operation.removeprefix("aten::")
    if name in ("mm", "addmm"):
        return "products with the head" if 32128 in sizes else _product(sizes)
    if (
        name == "bmm"
        or "softmax" in name
        or name in ("where", "all", "isneginf", "eq", "logical_not")
    ):
        return "attention"
    if name in ("bernoulli_", "random_", "ge", "native_dropout") or "dropout" in name:
        return "dropout: random numbers"
    if name in ("mul", "mul_", "div_", "div"):
        return "multiplication: dropout, norms"
    if name in ("copy_", "clone", "contiguous"):
        return "copies"
    if "threshold" in name or "relu" in name or name == "clamp_min":
        return "activation"
    return "everything else"


def _product(sizes: Sequence[int]) -> str:
    return "LoRA's products" if RANK in sizes else "products with frozen weights"


def memory(data: TaskData, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Peak memory of a process that trains, and of one that evaluates, for both sides."""
    peaks = {}
    for phase in ("train", "evaluate"):
        for side in ("ours", "plain"):
            asked = {
                k: v
                for k, v in vars(options).items()
                if v is not None and k not in ("only", "alone")
            }
            command = [sys.executable, __file__, "--alone", f"{side} {phase}"]
            command += [str(x) for k, v in asked.items() for x in (f"--{k}", v)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            peaks[f"{side}_{phase}_gigabytes"] = float(done.stdout.splitlines()[-1])
    yield {"what": "peak memory", **peaks}


def alone(data: TaskData, options: argparse.Namespace) -> None:
    """One side does one thing; print the peak memory of this process."""
    side, phase = options.alone.split()
    found = backbone(options.shape, options.layers)
    tests: Sequence[Example] = sample(data.test, options.tests, seed=0)
    if side == "ours":
        one = ours(found, "n-lora", data, options)
        one.train() if phase == "train" else one.evaluate(tests)
    else:
        encoder = ours(backbone("tiny"), "inc-lora", data, options).encoder
        other = Plain(
            found, encoder.all(data.train[: options.batch * options.steps]), options.batch
        )
        other.train() if phase == "train" else other.predict(encoder.all(tests))
    print(peak_memory() / 1e9)


PARTS = {
    "profile": profile,
    "training": training,
    "penalty": penalty,
    "evaluation": evaluation,
    "memory": memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", default="t5-base", choices=SHAPES)
    parser.add_argument("--layers", type=int, help="of each half, instead of all")
    parser.add_argument("--data", default=os.environ.get("NLORA_DATA"))
    parser.add_argument("--task", default="agnews")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--tests", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--only", default=",".join(PARTS), help=", ".join(PARTS))
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.data is None:
        parser.error("--data or NLORA_DATA is needed")
    warnings.filterwarnings("ignore")
    data = load_stream(options.task, Path(options.data))[0]
    if options.alone:
        alone(data, options)
        return
    for part in options.only.split(","):
        for row in PARTS[part](data, options):
            rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}
            print(
                json.dumps(
                    {
                        "shape": options.shape,
                        "layers": options.layers,
                        "task": options.task,
                        **rounded,
                    }
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
