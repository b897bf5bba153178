"""What a run would do, without doing it: counts, prompts as the model reads them, steps, sizes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from nlora.backbones.load import load
from nlora.backbones.targets import Targets
from nlora.continual.model import check_frozen, make_adapter, make_encoder
from nlora.data.encode import Encoder
from nlora.data.task import Example, TaskData
from nlora.data.writable import check_writable
from nlora.plan.resolve import Plan, trained
from nlora.training.loop import count_steps
from nlora.training.trainer import check_available


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
    adapted: Targets | None
    """The matrices that the adapter was put on, and why these."""
    trainable_parameters: int
    all_parameters: int


def preview(plan: Plan) -> Preview:
    """Look ahead. Only the model's configuration and tokenizer are read, not its weights.

    Raises NloraError for all that would stop the run before its first step.
    """
    check_available(plan.run)
    backbone = load(plan.base, torch.float32, weights=False)
    total = sum(p.numel() for p in backbone.model.parameters())
    if plan.run.quantization != "none":
        check_frozen(plan, plan.run.quantization)
    encoder = make_encoder(plan, backbone)
    check_writable(encoder, plan.stream)
    adapter = make_adapter(plan, backbone)
    adapter.begin()
    stages = plan.stages()
    counts = [sum(len(data.train) for data in stage.tasks) for stage in stages]
    return Preview(
        tasks=[_task(encoder, data) for data in plan.stream],
        stages=[
            (stage.name, count_steps(count, plan.run, stage.index))
            for stage, count in zip(stages, counts, strict=True)
        ],
        examples=[_render(encoder, e) for e in _first_two(plan.stream)],
        adapted=adapter.targets,
        trainable_parameters=sum(p.numel() for p in adapter.trained().values()),
        all_parameters=total,
    )


def _task(encoder: Encoder, data: TaskData) -> TaskPreview:
    encoded = encoder.all(data.train)
    return TaskPreview(
        name=data.name,
        train=len(data.train),
        test=len(data.test),
        labels=None if data.task.labels is None else len(data.task.labels),
        truncated=sum(e.truncated for e in encoded) / max(len(encoded), 1),
        longest=max((len(e) for e in encoded), default=0),
    )


def _first_two(stream: Sequence[TaskData]) -> list[Example]:
    first, *others = [data for data in trained(stream) if data.train]
    return [first.train[0], others[0].train[0]] if others else list(first.train[:2])


def _render(encoder: Encoder, example: Example) -> RenderedExample:
    ids = encoder(example)
    tokens = [encoder.tokenizer.decode([i]) for i in ids.answer]
    return RenderedExample(example.task.name, encoder.tokenizer.decode(ids.prompt), tokens)
