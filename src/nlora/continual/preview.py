"""What a run would do, without doing it: counts, prompts as the model reads them, steps, sizes."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from nlora import machine, processes
from nlora.backbones.load import load
from nlora.backbones.quantized import Quantization
from nlora.backbones.structure import wrappers
from nlora.backbones.targets import Targets
from nlora.continual.building import (
    check_frozen,
    check_metrics,
    check_packing,
    check_tasks,
    make_adapter,
    make_encoder,
    stored_targets,
    weights_dtype,
)
from nlora.continual.memory import Memory, estimate, what_fits
from nlora.continual.tasks import aligned
from nlora.data.balance import label_counts, majority
from nlora.data.encode import Encoder
from nlora.data.task import Example, TaskData
from nlora.errors import first_line
from nlora.fast.attention import use_plain_attention
from nlora.methods.base import Method
from nlora.methods.context import Stage
from nlora.methods.parts.terms import never_acting
from nlora.plan.resolve import Plan, trained
from nlora.store.directory import ModelDirectory
from nlora.training.arguments import check_available
from nlora.training.loop import count_steps


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
    majority: float | None
    """The share of the most frequent label in test, what a constant answer scores."""
    counts: dict[str, int]
    """Training examples by label; empty for free text."""
    notes: tuple[str, ...]
    """What reading its files decided and left out."""


@dataclass(frozen=True)
class RenderedExample:
    """An example as the model reads it, and the tokens that count in the loss."""

    task: str
    prompt: str
    """What stands before the first token that counts."""
    answer_tokens: list[str]
    """The tokens that count; none where the task is only tested."""
    spans: list[tuple[str, bool]]
    """All of it, in parts of which each counts or does not."""


@dataclass(frozen=True)
class Preview:
    """What `--dry-run` shows."""

    tasks: list[TaskPreview]
    """Those that would be trained, and those that are only tested."""
    stages: list[tuple[str, int]]
    """(name, optimiser steps); replayed or generated examples are not counted."""
    examples: list[RenderedExample]
    """The first of each task; two of one task alone."""
    adapted: Targets | None
    """The matrices that the adapter was put on, and why these."""
    trainable_parameters: int
    all_parameters: int
    notes: list[str]
    """What a run would tell of the data before it trains, and whether memory will be enough."""
    memory: Memory | None
    """What training takes; None where it cannot be estimated (the notes say why)."""


def preview(plan: Plan, directory: ModelDirectory | None = None) -> Preview:
    """Look ahead. Only the model's configuration and tokenizer are read, not its weights.

    With a `directory` what it has learned is left out, and its matrices are adapted. Raises
    NloraError for all that would stop the run before its first step.
    """
    check_available(plan.run)
    notes = plan.run.doubts()
    check_metrics(plan, notes.append)
    backbone = load(plan.base, weights_dtype(plan), weights=False, attention=plan.run.attention)
    if plan.run.attention == "auto":
        use_plain_attention(backbone.model)
    total = sum(p.numel() for p in backbone.model.parameters())
    if plan.run.quantization != "none":
        check_frozen(plan, plan.run.quantization)
    encoder = make_encoder(plan, backbone)
    done = directory.stages() if directory is not None else []
    stages = aligned(plan.stages(), done)[len(done) :]
    others = plan.only_tested
    tasks = [data for stage in stages for data in stage.tasks] or trained(plan.stream)
    check_tasks(plan, backbone, encoder, [*tasks, *others], notes.append)
    adapter = make_adapter(plan, backbone, stored_targets(directory) if directory else None)
    check_packing(plan, adapter.model)
    adapter.begin()
    steps = planned_steps(plan, encoder, stages)
    notes += never_acting(plan.method, stages, steps)
    if _mixes(plan.method):
        notes.append("steps are those of a stage's own examples; what it rehearses adds to them")
    counts = sum(p.numel() for p in adapter.trained().values())
    targets = adapter.targets
    memory = _memory(plan, adapter.model, encoder, tasks, notes)
    return Preview(
        tasks=[_task(encoder, data) for data in [*tasks, *others]],
        stages=[(stage.name, count) for stage, count in zip(stages, steps, strict=True)],
        examples=_examples(encoder, tasks, others),
        adapted=targets,
        trainable_parameters=counts,
        all_parameters=total,
        notes=notes,
        memory=memory,
    )


def _memory(
    plan: Plan, model: Any, encoder: Encoder, tasks: Sequence[TaskData], notes: list[str]
) -> Memory | None:
    """What training takes, and a note where that is not there."""
    run = plan.run
    examples = [example for data in tasks for example in encoder.all(data.train)]
    rows = max(min(run.batch_size // run.accumulation // processes.count(), len(examples)), 1)

    @cache
    def at(rows: int, checkpointing: bool, quantization: Quantization) -> Memory:
        return estimate(
            model, examples, rows, run.optimizer, checkpointing, quantization, run.packing
        )

    if not examples:
        return None
    if any(getattr(part, "prompted", False) for part in wrappers(model)):
        notes.append("memory is not estimated: soft prompts are read beside the text")
        return None
    try:
        found = at(rows, run.gradient_checkpointing, run.quantization)
        have = machine.device_memory()
        advice = what_fits(have, run, rows, at) if have else None
    except Exception as error:  # models of others, without numbers: there is no end of what fails
        notes.append(f"memory is not estimated: {first_line(error)}")
        return None
    if advice is not None:
        notes.append(advice)
    return found


def _mixes(method: Method) -> bool:
    """Whether stages are longer by examples that are replayed or generated."""
    own = type(method).mixed_in is not Method.mixed_in
    return own or (method.free.replay != "none" and method.free.replay_budget == "on-top")


def planned_steps(plan: Plan, encoder: Encoder, stages: Sequence[Stage]) -> list[int]:
    """The optimiser steps of each stage, without examples that are replayed or generated."""
    counts = [
        sum(len(encoder.chats.separate(data.train)) for data in stage.tasks) for stage in stages
    ]
    return [
        count_steps(count, plan.run, stage.index)
        for stage, count in zip(stages, counts, strict=True)
    ]


def _task(encoder: Encoder, data: TaskData) -> TaskPreview:
    encoded = encoder.all(data.train)
    return TaskPreview(
        name=data.name,
        train=len(data.train),
        test=len(data.test),
        labels=None if data.task.labels is None else len(data.task.labels),
        truncated=sum(e.truncated for e in encoded) / max(len(encoded), 1),
        longest=max((len(e) for e in encoded), default=0),
        majority=majority(label_counts(data.test, data.task.labels)),
        counts=label_counts(data.train, data.task.labels),
        notes=data.notes,
    )


def _examples(
    encoder: Encoder, tasks: Sequence[TaskData], others: Sequence[TaskData]
) -> list[RenderedExample]:
    """The first example of each task, and of those that are only tested; two of one task alone."""
    first = [data.train[0] for data in tasks if data.train]
    if len(first) == 1 and not others:
        first = [e for data in tasks for e in data.train[:2]]
    found = [_render(encoder, example) for example in first]
    return [*found, *(_asked(encoder, data.test[0]) for data in others if data.test)]


def _render(encoder: Encoder, example: Example) -> RenderedExample:
    ids = encoder(example)
    decode = encoder.tokenizer.decode
    counts = ids.counts or [True] * len(ids.answer)
    counted = [id for id, counts in zip(ids.answer, counts, strict=True) if counts]
    pairs = itertools.groupby(zip(ids.answer, counts, strict=True), key=lambda pair: pair[1])
    spans = [(decode([id for id, _ in part]), counts) for counts, part in pairs]
    prompt = decode(ids.prompt)
    tokens = [decode([id]) for id in counted]
    return RenderedExample(example.task.name, prompt, tokens, [(prompt, False), *spans])


def _asked(encoder: Encoder, example: Example) -> RenderedExample:
    """An example that is tested and never learned."""
    prompt = encoder.tokenizer.decode(encoder(example).prompt)
    return RenderedExample(example.task.name, prompt, [], [(prompt, False)])
