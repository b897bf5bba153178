"""What a run would do, without doing it: counts, prompts as the model reads them, steps, sizes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from nlora.data.encode import Encoder
from nlora.data.task import Example, TaskData
from nlora.methods.base import Stage
from nlora.models.backbone import load
from nlora.models.catalog import resolve
from nlora.training.config import Plan
from nlora.training.learner import make_carrier, make_encoder
from nlora.training.trainer import check_available, count_steps


@dataclass(frozen=True)
class TaskPreview:
    """One task as it would be trained: counts, and the share of its training texts that are cut."""

    name: str
    train: int
    test: int
    labels: int | None
    truncated: float
    longest: int
    """Tokens of the longest training example, its answer included."""


@dataclass(frozen=True)
class RenderedExample:
    """An example as the model reads it, and the tokens that count in the loss."""

    task: str
    prompt: str
    answer_tokens: list[str]


@dataclass(frozen=True)
class Preview:
    """What `--dry-run` shows."""

    tasks: list[TaskPreview]
    stages: list[tuple[str, int]]
    """(name, optimiser steps); replayed or generated examples are not counted."""
    examples: list[RenderedExample]
    trainable_parameters: int
    all_parameters: int


def preview(plan: Plan, stream: Sequence[TaskData]) -> Preview:
    """Look ahead. Only the model's configuration and tokenizer are read, not its weights.

    Raises NloraError for all that would stop the run before its first step.
    """
    check_available(plan.run)
    backbone = load(resolve(plan.config.model), torch.float32, weights=False)
    total = sum(p.numel() for p in backbone.model.parameters())
    encoder = make_encoder(plan, backbone)
    carrier = make_carrier(plan, backbone)
    carrier.begin()
    stages = [
        Stage(index, name, data, seed=0)
        for index, (name, data) in enumerate(plan.method.stages(stream), start=1)
    ]
    counts = [sum(len(data.train) for data in stage.tasks) for stage in stages]
    return Preview(
        tasks=[_task(encoder, data) for data in stream],
        stages=[
            (stage.name, count_steps(count, plan.run, stage.index))
            for stage, count in zip(stages, counts, strict=True)
        ],
        examples=[_render(encoder, e) for e in _first_two(stream)],
        trainable_parameters=sum(p.numel() for p in carrier.trainable()),
        all_parameters=total,
    )


def _task(encoder: Encoder, data: TaskData) -> TaskPreview:
    encoded = encoder.all(data.train)
    return TaskPreview(
        name=data.name,
        train=len(data.train),
        test=len(data.test),
        labels=None if data.task.labels is None else len(data.task.labels),
        truncated=sum(e.truncated for e in encoded) / len(encoded),
        longest=max(len(e) for e in encoded),
    )


def _first_two(stream: Sequence[TaskData]) -> list[Example]:
    if len(stream) > 1:
        return [stream[0].train[0], stream[1].train[0]]
    return list(stream[0].train[:2])


def _render(encoder: Encoder, example: Example) -> RenderedExample:
    ids = encoder(example)
    tokens = [encoder.tokenizer.decode([i]) for i in ids.answer]
    return RenderedExample(example.task.name, encoder.tokenizer.decode(ids.prompt), tokens)
