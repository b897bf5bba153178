"""One stage through the real training loop, on a tiny model and without a model directory."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from transformers import set_seed

from nlora.data.batches import TrainingOrder
from nlora.data.encode import Encoded, Encoder
from nlora.data.prompts import Prompter
from nlora.data.task import TaskData
from nlora.methods.base import Method, Penalty
from nlora.methods.context import Context, Stage
from nlora.plan.settings import RunSettings
from nlora.training.gradients import GradientCallback
from nlora.training.loop import take_examples
from nlora.training.trainer import StageTrainer
from tests import tiny


def encoder(shape: str) -> Encoder:
    """The tiny tokenizer's, for a model of that shape."""
    encoder_decoder = shape in tiny.ENCODER_DECODER
    return Encoder(tiny.tokenizer(encoder_decoder), Prompter(), encoder_decoder)


def encode(shape: str, data: TaskData) -> list[Encoded]:
    """The task's training examples as token ids."""
    return encoder(shape).all(data.train)


def stage(index: int = 1, data: TaskData | None = None, seed: int = 1, steps: int = 10) -> Stage:
    """A stage of one small task."""
    data = data or tiny.task()
    return Stage(index, data.name, (data,), seed=seed, steps=steps)


def first_epoch(rows: Sequence[Encoded], batch_size: int = 8) -> list[list[int]]:
    """The batches of the first epoch of a stage of seed 1, as indices."""
    order = TrainingOrder(rows, batch_size, 1)
    order.set_epoch(0)
    chosen = list(order)
    return [chosen[i : i + batch_size] for i in range(0, len(chosen), batch_size)]


def context(shape: str, adapter: Any, stage: Stage, **more: Any) -> Context:
    """What a hook is given in a stage, without a model directory."""
    return Context(
        stage=stage,
        adapter=adapter,
        encoder=encoder(shape),
        stream=stage.tasks,
        after=lambda number: nullcontext(),
        stage_of=lambda task: None,
        **more,
    )


def train_stage(
    shape: str,
    adapter: Any,
    method: Method,
    data: TaskData,
    extra: Sequence[Penalty] = (),
    **settings: Any,
) -> tuple[list[dict[str, float]], list[Penalty]]:
    """Train a stage that the adapter has begun: the loss terms of each step, and the penalties.

    `extra` penalties see every step after the method's own.
    """
    run = RunSettings(**{"precision": "fp32", "batch_size": 8, **settings})
    ctx = context(shape, adapter, Stage(1, data.name, (data,), seed=1))
    take_examples(method, ctx, run)
    penalties = method.penalties(ctx)
    set_seed(ctx.stage.seed)
    autocast = run.precision == "bf16"
    gradients = GradientCallback(method, ctx, [*penalties, *extra], run.optimizer)
    trainer = StageTrainer(method, ctx, run, gradients, autocast, Path("unused"))
    return trainer.losses_of_training(), penalties
