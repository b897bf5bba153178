"""What comes back of a task after a few steps on a few of its examples, on a copy of the model."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from nlora.data.task import digest, sample
from nlora.evaluation.answers import among_labels, exact_match
from nlora.explain.asked import Learned
from nlora.explain.looks import Looks
from nlora.explain.texts import SEED
from nlora.methods.context import Stage
from nlora.plan.budgets import at_stage
from nlora.store.kept import keep, kept
from nlora.training.loop import train

if TYPE_CHECKING:
    from nlora.continual.asked import Asked
    from nlora.continual.model import ContinualModel

STEPS = 10
"""Optimiser steps, each on all of the examples."""


def relearned(
    looks: Looks, tasks: Sequence[Learned], count: int
) -> dict[str, dict[str, float | None]]:
    """By task learned before the last stage, the right answers in per cent (`free`, `among`) after
    `STEPS` more steps on `count` of its training examples.

    The method learns them as one more stage, at its own learning rate, on top of the task's own
    model where every task has one; nothing of that stays in the model or its folder but these.
    Tasks without training examples are left out. Raises NloraError where the method cannot learn
    from so few.
    """
    model = looks.model
    last = len(model.records)
    found = {}
    for known in tasks:
        if known.data.train and known.stage < last:
            found[known.data.name] = _kept(looks, known, count, last)
    return found


def _kept(looks: Looks, known: Learned, count: int, last: int) -> dict[str, float | None]:
    """The shares from their file, or measured."""
    model = looks.model
    data = replace(known.data, train=sample(known.data.train, count, SEED), dev=())
    stage = Stage(last + 1, f"{data.name} again", (data,), seed=SEED, again=True)
    begins = model.base_of(stage)
    on = [] if begins is None or begins.index == last else [looks.made_of(begins.index)]
    key = digest([looks.made_of(last), *on, data.fingerprint(), STEPS])
    place = looks.place(last, known.data.name, f"relearned-{count}", ".json")
    if (right := kept(place, key)) is not None:
        return right
    model.progress.message(f"learning {count} examples of {known.data.name} again")
    right = _relearned(model, stage)
    keep(place, key, right)
    return right


def _without_offsets(model: "ContinualModel", task: str) -> "Asked":
    """The model as it stands, without the task's corrections, which learning it again drops."""
    known = model.asked.offsets
    return replace(
        model.asked,
        offsets=lambda: {name: found for name, found in known().items() if name != task},
    )


def _relearned(model: "ContinualModel", stage: Stage) -> dict[str, float | None]:
    [data] = stage.tasks
    plan, _ = at_stage(model.plan, stage.index)
    plan.method.check_tasks([data])
    plan.method.state = model.method.state
    size = len(data.train)
    few = {"batch_size": size, "accumulation": 1, "epochs": STEPS, "checkpoint_every": "never"}
    run = plan.run.model_copy(update=few)
    try:
        model.begin_after(stage)
        with TemporaryDirectory() as logs:
            none = Path(logs) / "checkpoints"
            train(plan.method, model.context(stage), run, model.mixed, Path(logs), none, {})
        answers = _without_offsets(model, data.name).tested(data.test)
    finally:
        model.restore()
    likely = among_labels(answers)
    return {
        "free": exact_match(answers),
        "among": None if likely is None else exact_match(likely),
    }
