"""What a request asks of the model, apart from its texts: requests of equal jobs share a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from nlora.continual import answering
from nlora.data.messages import conversation, plain
from nlora.data.task import Example
from nlora.errors import NloraError
from nlora.evaluation.writing import Tell, Writing, Written

if TYPE_CHECKING:
    from nlora.continual.answering import Answer
    from nlora.continual.model import ContinualModel

LONGEST = 8192
"""Tokens of a prompt that is not cut, with what is written after it; fewer if the model has."""


class Asked(NamedTuple):
    """A text that something is written after, and who is told of it token by token."""

    text: str
    tell: Tell = None


@dataclass(frozen=True)
class Predict:
    """Answers as `nlora predict` gives them."""

    task: str | None
    free: bool

    def __call__(self, model: ContinualModel, texts: Sequence[str]) -> list[Answer]:
        """An answer per text."""
        answering.check_asked(model.plan, model.directory, texts, self.task)
        return answering.answers(model, texts, self.task, self.free)


@dataclass(frozen=True)
class Chat:
    """What the model writes when it is asked as the examples of a task were."""

    task: str | None
    how: Writing

    def __call__(self, model: ContinualModel, asked: Sequence[Asked]) -> list[Written]:
        """What is written per conversation, each a text as tasks of chats have it."""
        texts = [one.text for one in asked]
        answering.check_asked(model.plan, model.directory, (), self.task)
        known = {data.name: data.task for data in model.stream}
        found: dict[int, Written] = {}
        groups: dict[tuple[str, int | None], list[int]] = {}
        for i, known_as in enumerate(_asked_as(model, texts, self.task)):
            groups.setdefault(known_as, []).append(i)
        for (name, stage), rows in groups.items():
            task = known[name]
            examples = [Example(task, _text(texts[i], name, task.chat), "") for i in rows]
            tells = {id(e): asked[i].tell for e, i in zip(examples, rows, strict=True)}

            def write(some: Sequence[Example], tells: Mapping[int, Tell] = tells) -> list[Written]:
                return model.asked.written(some, self.how, [tells[id(e)] for e in some])

            found.update(zip(rows, model.routing.ask(examples, name, stage, write), strict=True))
        return [found[i] for i in range(len(texts))]


@dataclass(frozen=True)
class Complete:
    """What the model writes after texts as they are, without any task's question."""

    task: str | None
    how: Writing

    def __call__(self, model: ContinualModel, asked: Sequence[Asked]) -> list[Written]:
        """What is written after each text. Raises NloraError for texts that are too long."""
        if self.task is not None:
            answering.check_asked(model.plan, model.directory, (), self.task)
        prompts = model.encoder.tokenize([one.text for one in asked])
        positions = getattr(model.backbone.model.config, "max_position_embeddings", None)
        most = min(LONGEST, positions or LONGEST)
        for ids in prompts:
            if len(ids) + self.how.max_new_tokens > most:
                raise NloraError(
                    f"the prompt has {len(ids)} tokens and {self.how.max_new_tokens} are to be "
                    f"written; at most {most} in all"
                )
        stage = None if self.task is None else model.own_stage(self.task)
        apart = model.method.routes_by_input or model.method.needs_task_id
        own = apart and stage is not None
        with model.method.at(model.context(), stage) if own else nullcontext():  # type: ignore[arg-type]
            return model.asked.continued(prompts, self.how, tells=[one.tell for one in asked])


def _asked_as(
    model: ContinualModel, texts: Sequence[str], task: str | None
) -> list[tuple[str, int | None]]:
    """The task that each text is asked as, and the stage whose model answers where one is known."""
    names = [data.name for data in model.stream]
    if task is None and len(names) == 1:
        [task] = names
    if task is not None:
        return [(task, model.own_stage(task))] * len(texts)
    routes = answering.routes_of(model, texts)
    named = [model.records[route.stage - 1].tasks[0]["name"] for route in routes]
    stages = [route.stage if route.own else None for route in routes]
    return list(zip(named, stages, strict=True))


def _text(text: str, task: str, chat: bool) -> str:
    """A conversation as the task takes it. Raises NloraError for turns that it never saw."""
    if chat:
        return text
    turns = conversation(text)
    if turns is None:
        return text
    if [turn["role"] for turn in turns] != ["user"]:
        raise NloraError(f"'{task}' was learned from single texts; give one message, of the user")
    return plain(text)
