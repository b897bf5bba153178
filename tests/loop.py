"""One stage through the real training loop, on a tiny model and without a model directory."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from transformers import set_seed

from nlora.data.batches import Collator
from nlora.data.encode import Encoded, Encoder
from nlora.data.prompts import Prompter
from nlora.data.task import TaskData
from nlora.methods.base import Method, Penalty, Stage
from nlora.training.config import RunSettings
from nlora.training.progress import Silent
from nlora.training.trainer import count_steps, train
from tests import tiny


def encode(shape: str, data: TaskData) -> list[Encoded]:
    """The task's training examples as token ids."""
    encoder_decoder = shape in tiny.ENCODER_DECODER
    encoder = Encoder(tiny.tokenizer(encoder_decoder), Prompter(), encoder_decoder)
    return [encoder(example) for example in data.train]


def train_stage(
    shape: str,
    carrier: Any,
    method: Method,
    data: TaskData,
    extra: Sequence[Penalty] = (),
    **settings: Any,
) -> tuple[list[dict[str, float]], list[Penalty]]:
    """Train a stage that the carrier has begun: the loss terms of each step, and the penalties.

    `extra` penalties see every step after the method's own.
    """
    run = RunSettings(**{"precision": "fp32", "batch_size": 8, **settings})
    examples = encode(shape, data)
    stage = Stage(1, data.name, (data,), seed=1, steps=count_steps(len(examples), run, 1))
    penalties = method.penalties(SimpleNamespace(carrier=carrier), stage)  # type: ignore[arg-type]
    collator = Collator(0, shape in tiny.ENCODER_DECODER, share_prefix=run.shared_prefix == "auto")
    set_seed(stage.seed)
    losses = train(
        method,
        carrier.model,
        stage,
        examples,
        [*penalties, *extra],
        run,
        collator,
        run.precision == "bf16",
        Silent(),
        Path("unused"),
    )
    return losses, penalties
