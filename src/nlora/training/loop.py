"""One stage, from the update that is made ready to the update that is trained."""

import math
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from nlora import processes
from nlora.adapters.base import Adapter
from nlora.data.task import Example, sample
from nlora.errors import NloraError
from nlora.methods.base import Method, MixedIn, per_stage
from nlora.methods.context import Context
from nlora.plan.settings import RunSettings
from nlora.progress import shown
from nlora.training.checkpoint import Keeper, stage_checkpoints
from nlora.training.gradients import GradientCallback
from nlora.training.trainer import StageTrainer


@dataclass(frozen=True)
class Trained:
    """What is known of a stage's training beside the update itself."""

    examples: int
    steps: int
    earlier_seconds: float
    """That training took in processes which were killed, up to the checkpoint that was gone on
    from."""
    trainable: int
    """How many parameters were trained."""
    losses: list[dict[str, float]]
    """Every loss term, norms and learning rate of each optimiser step."""
    notes: dict[str, Any]
    tell: Callable[[Mapping[str, float]], None]
    """Gives the trackers numbers that are measured afterwards."""


def train(
    method: Method,
    ctx: Context,
    run: RunSettings,
    autocast: bool,
    logs: Path,
    checkpoints: Path,
    of: Mapping[str, Any],
) -> Trained:
    """Train one stage: afterwards the adapter holds its update, and the method its state.

    With `autocast` matrices are multiplied in bf16. Trackers' files go below `logs`. Checkpoints
    are kept in the folder `checkpoints`, and the stage goes on from the newest if it is of the same
    stage and of what else decides its numbers: `of`, the plan and the stages before.
    """
    set_seed(ctx.stage.seed)
    method.begin(ctx)
    mixed = take_examples(method, ctx, run)
    penalties = method.penalties(ctx)
    with torch.autocast(ctx.model.device.type, torch.bfloat16, enabled=autocast):
        until = method.until(ctx)  # which compares with what is computed in training
    gradients = GradientCallback(method, ctx, penalties, run.optimizer, until)
    kept = stage_checkpoints(checkpoints, method, ctx, of)
    keeper = Keeper(kept, run.checkpoint_every, method, ctx, penalties)
    keeper.find()
    resumed = keeper.from_step
    title = f"{ctx.stage.index} {ctx.stage.name}: training"
    with (
        frozen(ctx.adapter, method.frozen_parameters(ctx)),
        shown(ctx.progress, title, ctx.stage.steps),
    ):
        trainable = sum(p.numel() for p in ctx.adapter.trainable())
        trainer = StageTrainer(method, ctx, run, gradients, autocast, logs, keeper)
        losses = trainer.losses_of_training()
        tell = trainer.teller()
    ctx.adapter.consolidate()
    method.end(ctx)
    method.keep(ctx)
    notes = {
        "truncated": sum(e.truncated for e in ctx.encoded),
        **({"adapted": asdict(targets)} if (targets := ctx.adapter.targets) else {}),
        **ctx.adapter.notes(),
        **{p.name: p.notes() for p in penalties if p.notes()},
        **gradients.notes(),
        **({"mixed_in": mixed} if mixed else {}),
        **({"kept_examples": known} if (known := method.kept_examples()) else {}),
        **method.notes(ctx),
        **({"resumed_after_steps": resumed.at} if resumed.at else {}),
    }
    steps, seconds = len(losses), resumed.seconds
    return Trained(len(ctx.examples), steps, seconds, trainable, losses, notes, tell)


@contextmanager
def frozen(adapter: Adapter, names: Collection[str]) -> Iterator[None]:
    """Leave parameters of these names out of training, and let them be trainable afterwards."""
    trained = adapter.trained()
    held = [trained[name] for name in names]
    for parameter in held:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)


def take_examples(method: Method, ctx: Context, run: RunSettings) -> dict[str, dict[str, int]]:
    """Put the stage's examples, those mixed in, their token ids and the steps into the context.

    What is mixed in, by what it is and its task: how many examples.
    """
    separate, seed = ctx.encoder.chats.separate, ctx.stage.seed
    own = separate(method.examples(ctx))
    mixed: list[Example] = []
    counts: dict[str, dict[str, int]] = {}
    for more in (method.mixed_in(ctx), method.rehearsed(ctx)):
        more = more._replace(examples=separate(more.examples))
        own, found = together(own, more, seed)
        mixed += found
        for example in found:
            of_kind = counts.setdefault(more.what, {})
            of_kind[example.task.name] = of_kind.get(example.task.name, 0) + 1
    # All processes must agree, also on what was generated.
    ctx.examples, ctx.own = processes.from_main([*own, *mixed]), len(own)
    encoded = method.encode(ctx, ctx.examples)
    ctx.encoded = [replace(example, index=i) for i, example in enumerate(encoded)]
    ctx.stage = replace(ctx.stage, steps=count_steps(len(ctx.encoded), run, ctx.stage.index))
    return counts


def together(
    own: Sequence[Example], more: MixedIn, seed: int
) -> tuple[Sequence[Example], list[Example]]:
    """The examples of a stage's own, and those mixed in, as many as their share asks for.

    In place of own ones at most half are mixed in, each label of the others keeping its share.
    Raises NloraError for a share that is no share.
    """
    if not more.instead or not more.examples:
        return own, mixed_examples(len(own), more, seed)
    count, rest = len(own), len(more.examples)
    share = rest / (count + rest) if more.share is None else more.share
    taken = min(round(share * count), count // 2)
    if taken == 0:
        return own, []
    # As a share of what is left it is exact: round(taken) of so many others.
    mixed = mixed_examples(count - taken, more._replace(share=taken / count), seed)
    return sample(own, count - len(mixed), seed), mixed


def mixed_examples(own: int, mixed: MixedIn, seed: int) -> list[Example]:
    """The examples that are mixed in with `own` others, as many as their share asks for.

    Raises NloraError for a share that is no share.
    """
    examples, share = list(mixed.examples), mixed.share
    if share is None or not examples:
        return examples
    if not 0 <= share < 1:
        raise NloraError(f"the share of mixed-in examples must be at least 0 and below 1: {share}")
    count = max(round(own * share / (1 - share)), 1) if share else 0
    order = random.Random(seed)
    found: list[Example] = []
    while len(found) < count:
        order.shuffle(examples)
        found += examples[: count - len(found)]
    return found


def count_steps(examples: int, settings: RunSettings, stage: int) -> int:
    """Optimiser steps of a stage."""
    epochs = int(per_stage(settings.epochs, stage, "epochs"))
    return epochs * math.ceil(examples / settings.batch_size)
