"""What a request asks of the model, apart from its texts: requests of equal jobs share a batch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from nlora.backbones.structure import learned_positions
from nlora.continual import answering
from nlora.continual.building import soft_tokens
from nlora.continual.model import bare
from nlora.data.messages import conversation, plain
from nlora.data.task import Example, Task
from nlora.errors import NloraError
from nlora.evaluation.writing import Over, Tell, Writing, Written

if TYPE_CHECKING:
    from nlora.continual.answering import Answer
    from nlora.continual.model import ContinualModel
    from nlora.serve.served import Served

LONGEST = 8192
"""Tokens of a prompt that is not cut, with what is written after it; fewer if the model has."""


class Asked(NamedTuple):
    """A text that something is written after, who is told of it token by token, and who ends it."""

    text: str
    tell: Tell = None
    over: Over = None


@dataclass(frozen=True)
class Predict:
    """Answers as `nlora predict` gives them."""

    task: str | None
    free: bool

    def __call__(self, served: Served, texts: Sequence[str]) -> list[Answer]:
        """An answer per text."""
        model, corrections = served.model.continual, {} if self.free else served.corrections
        answering.check_asked(model.plan, model.directory, texts, self.task)
        return answering.answers(model, texts, self.task, self.free, corrections)


@dataclass(frozen=True)
class Chat:
    """What the model writes when it is asked as the examples of a task were."""

    task: str | None
    how: Writing

    def __call__(self, served: Served, asked: Sequence[Asked]) -> list[Written]:
        """What is written per conversation, each a text as tasks of chats have it.

        Raises NloraError for what cannot be asked, before anything is written.
        """
        model = served.model.continual
        texts = [one.text for one in asked]
        answering.check_asked(model.plan, model.directory, (), self.task)
        known = {data.name: data.task for data in model.stream}
        examples: list[Example] = []
        groups: dict[tuple[str | None, int | None], list[int]] = {}
        for i, (name, stage) in enumerate(_asked_as(model, texts, self.task)):
            groups.setdefault((name, stage), []).append(i)
            examples.append(bare(texts[i]) if name is None else _example(texts[i], known[name]))
        positions = learned_positions(model.backbone.model)
        if positions is not None:
            prompts = [ids for ids, _ in model.encoder.prompts(examples)]
            _check_room(model, prompts, self.how, positions)
        by = {id(e): one for e, one in zip(examples, asked, strict=True)}

        def write(some: Sequence[Example]) -> list[Written]:
            theirs = [by[id(example)] for example in some]
            tells, overs = [one.tell for one in theirs], [one.over for one in theirs]
            return model.asked.written(some, self.how, tells, overs)

        found: dict[int, Written] = {}
        for (name, stage), rows in groups.items():
            mine = [examples[i] for i in rows]
            if name is None:
                with model.after(0):
                    written = write(mine)
            else:
                written = model.routing.ask(mine, name, stage, write)
            found.update(zip(rows, written, strict=True))
        return [found[i] for i in range(len(texts))]


@dataclass(frozen=True)
class Complete:
    """What the model writes after texts as they are, without any task's question."""

    task: str | None
    how: Writing

    def __call__(self, served: Served, asked: Sequence[Asked]) -> list[Written]:
        """What is written after each text. Raises NloraError for texts that are too long."""
        model = served.model.continual
        if self.task is not None:
            answering.check_asked(model.plan, model.directory, (), self.task)
        prompts = model.encoder.raw([one.text for one in asked])
        config = model.backbone.model.config.get_text_config(decoder=True)
        positions = getattr(config, "max_position_embeddings", None)
        _check_room(model, prompts, self.how, min(LONGEST, positions or LONGEST))
        stage = None if self.task is None else model.own_stage(self.task)
        apart = model.method.routes_by_input or model.method.needs_task_id
        own = apart and stage is not None
        with model.method.at(model.context(), stage) if own else nullcontext():  # type: ignore[arg-type]
            tells, overs = [one.tell for one in asked], [one.over for one in asked]
            return model.asked.continued(prompts, self.how, tells=tells, overs=overs)


def _asked_as(
    model: ContinualModel, texts: Sequence[str], task: str | None
) -> list[tuple[str | None, int | None]]:
    """The task that each text is asked as, and the stage whose model answers where one is known.

    No task where the base model answers what is far from all. Raises NloraError where nothing does.
    """
    names = [data.name for data in model.stream]
    if task is None and len(names) == 1:
        [task] = names
    if task is not None:
        return [(task, model.own_stage(task))] * len(texts)
    beyond = answering.answers_far(model)
    found: list[tuple[str | None, int | None]] = []
    for route in answering.routes_of(model, texts):
        if route.unknown and beyond == "none":
            raise NloraError(answering.why_far(route))
        if route.unknown and beyond == "base":
            found.append((None, None))
        else:
            name = model.records[route.stage - 1].tasks[0]["name"]
            found.append((name, route.stage if route.own else None))
    return found


def _example(text: str, task: Task) -> Example:
    """A conversation as the task takes it. Raises NloraError for turns that it never saw."""
    turns = None if task.chat else conversation(text)
    if turns is None:
        return Example(task, text, "")
    if [turn["role"] for turn in turns] != ["user"]:
        raise NloraError(
            f"'{task.name}' was learned from single texts; give one message, of the user"
        )
    return Example(task, plain(text), "")


def _check_room(
    model: ContinualModel, prompts: Sequence[list[int]], how: Writing, positions: int
) -> None:
    """Raise NloraError where a prompt and what is written take more positions than there are."""
    most, new = positions - soft_tokens(model.plan), how.max_new_tokens
    longest = max(map(len, prompts))
    apart = model.encoder.encoder_decoder
    if (max(longest, new) if apart else longest + new) > most:
        raise NloraError(
            f"the prompt has {longest} tokens and {new} are to be written; at most {most} "
            f"{'of each' if apart else 'in all'}"
        )
