"""One table of what a GPU makes of nlora, in ten minutes: penalty, training, evaluation.

    python -m benchmarks.gpu [--minutes 9] [--models t5-large llama-3-8b qwen3-4b] [--json FILE]
    python -m benchmarks.gpu --dry-run        tiny shapes on the CPU: does the script work?

Models have random weights and inputs random tokens, so nothing is downloaded. What is measured
first matters most; when the time is up, what is left is said and the table printed.

Each training row is a process of StageTrainer, as `nlora run` trains, or of Transformers' Trainer
over PEFT's model (`plain`), on batches of the same shapes: the median step after two that warm up.
`task` 5 has four random earlier updates in force. MFU counts the products that the row itself has
to do: of T tokens, 4·T for each frozen weight (forwards, and backwards to the inputs), 6·T for each
trained one (those of earlier updates are frozen, where they stand beside the weights), 4 for
each weight of the head and each position at which logits are asked for (all
of them in `plain`), and 12·S²·width (half of it where attention is causal) for each sequence and
layer; over the rate of a large bf16 product on this machine, measured in the same run.
"""

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarks.random_models import (
    ANSWER,
    DEVICE,
    SHAPES,
    TINY,
    Shape,
    Words,
    build,
    examples,
    operations,
)
from peft import LoraConfig, get_peft_model
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from benchmarks import penalty
from nlora.adapters.registry import adapter as kind_of
from nlora.cli.console import show
from nlora.data.batches import Collator, on_device
from nlora.errors import NloraError
from nlora.evaluation.answers import ANYTHING
from nlora.evaluation.greedy import decode
from nlora.fast.attention import use_plain_attention
from nlora.lowrank.factors import Factors
from nlora.lowrank.l1 import entries
from nlora.machine import machine, versions
from nlora.methods.context import Context, Stage
from nlora.plan.config import RunConfig
from nlora.plan.resolve import choose
from nlora.training.gradients import GradientCallback
from nlora.training.trainer import StageTrainer

WARM = 2
ACTIVE = {"l1_unit": "sum", "l1": 1e-6}
"""A penalty of n-lora that acts from the first step on."""
TRAINED = (("inc-lora", {}), ("n-lora", ACTIVE), ("o-lora", {}))

Row = dict[str, Any]


class Clock(TrainerCallback):
    """Seconds of each step, once the device has done it."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        synchronize()
        self.ends.append(time.perf_counter())

    def step(self) -> float:
        steps = [b - a for a, b in zip(self.ends, self.ends[1:], strict=False)]
        return statistics.median(steps[WARM - 1 :])


def synchronize() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def peak() -> float | None:
    """GB at most since the row began; only a GPU tells."""
    return torch.cuda.max_memory_allocated() / 1e9 if DEVICE == "cuda" else None


def earlier(adapter: Any, count: int) -> list[dict[str, Factors]]:
    """So many random updates."""
    return [
        {
            name: Factors(
                torch.randn_like(own.A) / own.A.shape[1] ** 0.5,
                0.01 * torch.randn_like(own.B),
                own.scaling,
            )
            for name, own in adapter.factors().items()
        }
        for _ in range(count)
    ]


def trained(shape: Shape, precision: str, name: str, settings: Row, task: int) -> Row:
    """Steps as `nlora run` takes them."""
    model = build(shape, precision)
    asked: Row = {"batch_size": shape.rows, "precision": "bf16", **settings}
    choice = choose(RunConfig(model="random", method=name, settings=asked))
    method, run = choice.method, choice.run
    use_plain_attention(model)
    adapter = kind_of(method.adapter).build(model, run, **method.adapter_options())
    adapter.past = earlier(adapter, task - 1)
    encoder: Any = Words(model.config.is_encoder_decoder)
    ctx = Context(
        stage=Stage(task, "random", (), seed=1, steps=WARM + shape.steps),
        adapter=adapter,
        encoder=encoder,
        stream=(),
        after=lambda stage: nullcontext(),
        stage_of=lambda task: None,
    )
    method.begin(ctx)
    ctx.encoded = examples(model, shape, WARM + shape.steps)
    gradients = GradientCallback(method, ctx, method.penalties(ctx), run.optimizer)
    trainer = StageTrainer(method, ctx, run, gradients, False, Path("unused"))
    clock = Clock()
    trainer.add_callback(clock)
    trainer.losses_of_training()
    head_rows = shape.rows * ANSWER
    return told(name, task, clock.step(), operations(model, shape, head_rows), shape)


def plain(shape: Shape, precision: str, attention: str = "sdpa", compiled: bool = False) -> Row:
    """Steps of a Trainer over PEFT's model, with logits at every position."""
    base = build(shape, precision, attention)
    encoder_decoder = base.config.is_encoder_decoder
    kind = "SEQ_2_SEQ_LM" if encoder_decoder else "CAUSAL_LM"
    model = get_peft_model(base, LoraConfig(task_type=kind, r=8, lora_alpha=32, lora_dropout=0.1))
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=shape.rows,
            use_cpu=DEVICE == "cpu",
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
            remove_unused_columns=False,
            torch_compile=compiled,
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=examples(base, shape, WARM + shape.steps),  # type: ignore[arg-type]
            data_collator=Collator(0, encoder_decoder),
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    what = "plain" + (f", {attention}" if attention != "sdpa" else "")
    head_rows = shape.rows * (ANSWER if encoder_decoder else shape.length)
    done = operations(base, shape, head_rows)
    return told(what + (", compiled" if compiled else ""), 1, clock.step(), done, shape)


def told(what: str, task: int, seconds: float, done: float, shape: Shape) -> Row:
    tokens = shape.rows * shape.length
    rate = {"tokens/s": tokens / seconds, "operations": done / seconds}
    return {"what": what, "task": task, "seconds": seconds, **rate, "peak (GB)": peak()}


@torch.inference_mode()
def answered(shape: Shape, ours: bool) -> Row:
    """Greedy answers of 16 tokens to a batch of prompts."""
    model = build(shape, "bf16").eval()
    words: Any = Words(model.config.is_encoder_decoder)
    prompts = [e.prompt for e in examples(model, shape, 1)]

    def work() -> None:
        if ours:
            expected = [ANYTHING] * len(prompts)
            list(decode(model, words, prompts, expected, 16, shape.rows * shape.length))
            return
        batch = on_device(Collator(0, words.encoder_decoder).prompts(prompts), model.device)
        model.generate(**batch, max_new_tokens=16, do_sample=False, pad_token_id=0)

    if ours:
        use_plain_attention(model)
    work()
    seconds = min(penalty.seconds(work) for _ in range(2))
    rate = {"tokens/s": len(prompts) * shape.length / seconds}
    name = "nlora answers" if ours else "generate"
    return {"what": name, "task": None, "seconds": seconds, **rate, "peak (GB)": peak()}


def penalised(way: str, matrices: list[tuple[int, int]]) -> Row:
    """Value and gradients of ‖ΔW‖₁ of a model's matrices."""
    factors = penalty.draw(matrices, DEVICE)
    penalty.both_passes(way, factors)
    seconds = statistics.median(sum(penalty.both_passes(way, factors)) for _ in range(5))
    done = 6 * penalty.RANK * entries(factors) / seconds
    row = {"what": f"penalty, {way}", "task": None, "seconds": seconds, "operations": done}
    return {**row, "peak (GB)": peak()}


def floor_of_bytes(matrices: list[tuple[int, int]]) -> Row:
    """Seconds to read the factors and to write their gradients, at the rate of a large copy."""
    factors = penalty.draw(matrices, DEVICE)
    moved = 2 * sum(A.nbytes + B.nbytes for A, B, _ in factors)
    much = torch.empty(2**28 if DEVICE == "cuda" else 2**20, device=DEVICE)
    much.clone()
    seconds = min(penalty.seconds(much.clone) for _ in range(5))
    rate = 2 * much.nbytes / seconds
    return {"what": "penalty, floor of bytes", "task": None, "seconds": moved / rate}


Part = tuple[str, str, Callable[[], Row]]
"""The model, its precision, and what measures a row."""


def parts(names: list[str], shapes: dict[str, Shape], tiny: bool) -> Iterator[Part]:
    """What is measured, what matters most first."""
    for name in names:
        yield name, "bf16", partial(plain, shapes[name], "bf16")
        for method, settings in TRAINED:
            yield name, "bf16", partial(trained, shapes[name], "bf16", method, settings, 1)
    for name in names:
        for method, settings in TRAINED[1:]:
            yield name, "bf16", partial(trained, shapes[name], "bf16", method, settings, 15)
    matrices = penalty.SHAPES["llama-3-8b"] if not tiny else [(64, 64)]
    for way in penalty.WAYS:
        yield "llama-3-8b", "fp32", partial(penalised, way, matrices)
    yield "llama-3-8b", "fp32", partial(floor_of_bytes, matrices)
    for name in names:
        for ours in (False, True):
            yield name, "bf16", partial(answered, shapes[name], ours)
    for name in names[1:]:
        yield name, "4bit", partial(plain, shapes[name], "4bit")
        yield name, "4bit", partial(trained, shapes[name], "4bit", "n-lora", ACTIVE, 1)
    for name in names[1:2]:
        for method, settings in TRAINED:
            yield name, "bf16", partial(trained, shapes[name], "bf16", method, settings, 5)
        yield name, "bf16", partial(plain, shapes[name], "bf16", "flash_attention_2")
        if not tiny:
            yield name, "bf16", partial(plain, shapes[name], "bf16", compiled=True)


def product_rate(size: int) -> float:
    """Operations per second of a bf16 product of such matrices, at its best of ten."""
    a, b = torch.randn(2, size, size, device=DEVICE).bfloat16()
    return 2 * size**3 / min(penalty.seconds(lambda: a @ b) for _ in range(10))


def measure(part: Part, rate: float) -> Row:
    """The row, or why there is none."""
    name, precision, work = part
    gc.collect()
    if DEVICE == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        row = work()
    except (ImportError, ValueError, RuntimeError, NloraError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        call: Any = work
        return {"model": name, "precision": precision, "left out": f"{call.func.__name__}: {said}"}
    done = row.pop("operations", None)
    mfu = 100 * done / rate if done and precision != "fp32" else None
    return {"model": name, "precision": precision, **row, "MFU (%)": mfu}


def main(arguments: list[str] | None = None) -> list[Row]:
    """Measure and print; the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--json", type=Path, help="a line for each row, as it is measured")
    options = parser.parse_args(arguments)
    ends = time.monotonic() + 60 * options.minutes
    shapes = TINY if options.dry_run else SHAPES
    rate = product_rate(64 if options.dry_run else 8192)
    rows: list[Row] = []
    for part in parts(options.models, shapes, options.dry_run):
        rows.append(
            measure(part, rate)
            if time.monotonic() < ends
            else {"model": part[0], "precision": part[1], "left out": "the time was up"}
        )
        line = json.dumps(rows[-1])
        print(line, flush=True)
        if options.json:
            with options.json.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
    columns = ["model", "precision", "what", "task", "seconds", "tokens/s", "MFU (%)", "peak (GB)"]
    measured = [row for row in rows if "left out" not in row]
    title = f"{machine()}, {versions()}, bf16 products at {rate / 1e12:.3g} Tflop/s"
    show(title, columns, [[row.get(name) for name in columns] for row in measured], ".4g")
    return rows


if __name__ == "__main__":
    main()
