"""What a trained model answers to texts that it has not seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nlora import endings, processes
from nlora.continual.agreement import stored_plan
from nlora.continual.tasks import only_tested
from nlora.data.messages import conversation, plain
from nlora.data.task import Example, Task
from nlora.errors import NloraError, option, unknown
from nlora.progress import Progress, shown, spoken
from nlora.store.directory import ModelDirectory

if TYPE_CHECKING:
    from nlora.continual.model import ContinualModel
    from nlora.evaluation.matching import Correction
    from nlora.methods.base import Route
    from nlora.plan.resolve import Plan


Correct = Callable[["ContinualModel", Sequence[str]], Mapping[str, "Correction"]]
"""Finds corrections of the scores of labels for tasks of a model, by their names."""

_NONE: Mapping[str, Correction] = MappingProxyType({})


class Answer(NamedTuple):
    """A text, the task that it was asked as, and what the model answered.

    `probabilities` are those of the task's labels, which sum to 1; None for free answers.
    """

    text: str
    task: str | None
    """None where the text is far from every task."""
    answer: str | None
    """None where there is none: `reason` says why."""
    probabilities: dict[str, float] | None = None
    confidence: float | None = None
    """The probability of the task among those learned, where a router chose it; it says nothing of
    the answer. None where there is no task."""
    unknown: bool = False
    """Whether the text is far from every task."""
    alike: tuple[str, ...] = ()
    """Other tasks with such texts, which the router takes for this one: the task is a guess."""
    reason: str | None = None


@endings.together()
def predict(
    model_dir: Path,
    texts: Sequence[str],
    task: str | None = None,
    progress: Progress | None = None,
    free: bool = False,
    correct: Correct | None = None,
) -> list[Answer]:
    """The answers of the model that `run` or `learn` has made, in the texts' order.

    A text is asked as the task's examples were, with its instruction and labels. The answer is the
    most likely of the task's labels; with `free`, or where the task has none, it is the text that
    greedy decoding gives, as in the tests of `run` and `learn`. `task` names a learned one, and its
    model answers wherever there is more than one; without it there must be one task alone, or a
    method that finds it by the input (`routing=input`), where a text far from every task is
    answered as the setting `unknown` says. `correct` gives corrections of the scores of labels, by
    task. Nothing else is written. Raises NloraError if there is no model or no such task.
    """
    directory = ModelDirectory(model_dir)
    plan = stored_plan(directory)
    check_asked(plan, directory, texts, task)
    from nlora.continual.model import ContinualModel  # slow, and not for what is refused

    model = ContinualModel.begin(plan, directory, spoken(progress))
    asked = [data.name for data in plan.stream] if task is None else [task]
    return answers(model, texts, task, free, correct(model, asked) if correct else {})


def check_asked(
    plan: Plan, directory: ModelDirectory, texts: Sequence[str], task: str | None
) -> None:
    """Raise NloraError, before a model is loaded, for what cannot be asked.

    That is a task that was not learned, a text without its task where nothing finds it, and a chat
    of a task that has none.
    """
    names = [data.name for data in plan.stream]
    if task is not None and task not in names:
        if any(data.name == task for data in only_tested(directory)):
            learned = ", ".join(names)
            raise NloraError(f"task '{task}' is only tested and never learned; learned: {learned}")
        raise unknown("task", task, names)
    if task is None and len(names) > 1 and not plan.method.routes_by_input:
        raise NloraError(f"which task? name one of {', '.join(names)} as {option('task')}")
    mine = [data.task for data in plan.stream if task in (None, data.name)]
    if not any(known.chat for known in mine):
        chat = next((i for i, text in enumerate(texts, start=1) if conversation(text)), None)
        if chat is not None:
            raise NloraError(
                f"example {chat} is a chat, and '{mine[0].name}' was trained on single texts: give "
                "the texts themselves (`text`)"
            )


def answers(
    model: ContinualModel,
    texts: Sequence[str],
    task: str | None = None,
    free: bool = False,
    corrections: Mapping[str, Correction] = _NONE,
) -> list[Answer]:
    """`predict` of a model in memory."""
    known = {data.name: data.task for data in model.stream}
    if task is None and len(known) == 1:
        [task] = known
    with shown(model.progress, "answers", len(texts)):
        if task is None:
            return _found(model, known, texts, free, corrections)
        given = _given(model, known[task], texts, free, model.own_stage(task), corrections)
        return [
            Answer(text, task, said, likely)
            for text, (said, likely) in zip(texts, given, strict=True)
        ]


Given = tuple[str | None, dict[str, float] | None]
"""An answer, and the probabilities of the task's labels where it is one of them."""


def _given(
    model: ContinualModel,
    task: Task,
    texts: Sequence[str],
    free: bool,
    stage: int | None,
    corrections: Mapping[str, Correction],
) -> list[Given]:
    """The answers to texts of a task: the most likely labels, or what greedy decoding says."""
    examples = [Example(task, text if task.chat else plain(text), "") for text in texts]
    if free or task.labels is None:
        return [(p.text, None) for p in model.answer(examples, task.name, stage)]
    if not examples:
        return []
    if task.name in corrections:
        scores = model.scores(examples, task.name, stage)
        scores = corrections[task.name](np.array(scores)).tolist()
    else:
        scores = model.corrected(examples, task.name, stage)
    return [_chosen(task.labels, row) for row in scores]


def _chosen(labels: Sequence[str], scores: Sequence[float]) -> tuple[str, dict[str, float]]:
    """The most likely label, and the probability of each among them."""
    best = max(scores)
    weights = [math.exp(score - best) for score in scores]
    total = sum(weights)
    probabilities = {label: weight / total for label, weight in zip(labels, weights, strict=True)}
    return labels[scores.index(best)], probabilities


def _found(
    model: ContinualModel,
    known: dict[str, Task],
    texts: Sequence[str],
    free: bool,
    corrections: Mapping[str, Correction],
) -> list[Answer]:
    """The answers of the stage that each text is taken for, stage by stage."""
    routes = routes_of(model, texts)
    alike = {
        stage: tuple(model.records[other - 1].tasks[0]["name"] for other in sorted(others))
        for stage, others in model.method.alike(model.context()).items()
    }
    guessed = sum(route.stage in alike for route in routes)
    if guessed:
        model.progress.message(
            f"{guessed} of {len(texts)} texts are of a kind that several tasks have, so their task "
            f"is a guess (`alike` names the others): name it by {option('task')}"
        )
    beyond = answers_far(model)
    few = {route.stage for route in routes if route.limit is None}
    if beyond != "nearest" and few:
        names = ", ".join(model.records[stage - 1].tasks[0]["name"] for stage in sorted(few))
        model.progress.message(
            f"{names}: fewer than 100 training texts are too few to say which texts are far from "
            "them, so every text that is nearest to one of these is answered by its model"
        )
    groups: dict[tuple[int | None, bool], list[int]] = {}
    for i, route in enumerate(routes):
        far = route.unknown and beyond != "nearest"
        groups.setdefault((None if far else route.stage, route.own), []).append(i)
    found: dict[int, Answer] = {}
    for stage, own in sorted(groups, key=lambda group: (group[0] or 0, group[1])):
        rows = groups[stage, own]
        chosen = [texts[i] for i in rows]
        name, given = None, [(None, None)] * len(rows)
        if stage is not None:
            name = model.records[stage - 1].tasks[0]["name"]
            answering = stage if own else None
            given = _given(model, known[name], chosen, free, answering, corrections)
        elif beyond == "base":
            given = [(p.text, None) for p in model.bare(chosen)]
        else:
            model.progress.advance(len(rows))
        for i, (said, likely) in zip(rows, given, strict=True):
            route, reason = routes[i], why_far(routes[i]) if stage is None else None
            also = alike.get(route.stage, ()) if stage is not None else ()
            sure = None if stage is None else route.confidence
            known_of = (sure, route.unknown, also, reason)
            found[i] = Answer(texts[i], name, said, likely, *known_of)
    return [found[i] for i in range(len(texts))]


def routes_of(model: ContinualModel, texts: Sequence[str]) -> list[Route]:
    """Which stage each text is taken for. Raises NloraError where nothing finds that."""
    any_task = model.stream[0].task  # a router that is told no task reads the text alone
    asked = [Example(any_task, text, "") for text in texts]
    routes = processes.from_main(model.method.routes(model.context(), asked, named=False))
    if routes is None:
        names = ", ".join(data.name for data in model.stream)
        raise NloraError(f"which task? name one of {names} as {option('task')}")
    return routes


def answers_far(model: ContinualModel) -> str:
    """What answers a text far from every task: `none`, `base`, or the `nearest` task's model."""
    return getattr(model.method.settings, "unknown", "nearest")


def why_far(route: Route) -> str:
    """Why a text far from every task has no answer of a task's model."""
    return (
        f"far from every task: at a distance of {route.distance:.3g} from the nearest, whose own "
        f"texts are within {route.limit:.3g}; name the task to have an answer of its model"
    )
