"""What a trained model answers to texts that it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from nlora import processes
from nlora.continual.agreement import stored_plan
from nlora.continual.learning import spoken
from nlora.data.task import Example, Task
from nlora.errors import NloraError, unknown
from nlora.progress import Progress, shown
from nlora.store.directory import ModelDirectory

if TYPE_CHECKING:
    from nlora.continual.model import ContinualModel


class Answer(NamedTuple):
    """A text, the task that it was asked as, and what the model answered."""

    text: str
    task: str
    answer: str


@processes.together()
def predict(
    model_dir: Path, texts: Sequence[str], task: str | None = None, progress: Progress | None = None
) -> list[Answer]:
    """The answers of the model that `run` or `learn` has made, in the texts' order.

    A text is asked as the task's examples were, with its instruction and labels. `task` names a
    learned one; without it there must be one alone, or a method that finds it by the input
    (`routing=input`). Nothing is written. Raises NloraError if there is no model or no such task.
    """
    directory = ModelDirectory(model_dir)
    plan = stored_plan(directory)
    names = [data.name for data in plan.stream]
    if task is not None and task not in names:
        raise unknown("task", task, names)
    from nlora.continual.model import ContinualModel  # slow, and not for what is refused

    return answers(ContinualModel.begin(plan, directory, spoken(progress)), texts, task)


def answers(model: ContinualModel, texts: Sequence[str], task: str | None = None) -> list[Answer]:
    """`predict` of a model in memory."""
    asked = _tasks(model, texts, task)
    found: dict[int, Answer] = {}
    with shown(model.progress, "answers", len(texts)):
        for one in dict.fromkeys(asked):
            rows = [i for i, of_row in enumerate(asked) if of_row == one]
            given = model.answer([Example(one, texts[i], "") for i in rows], one.name)
            found |= {
                i: Answer(texts[i], one.name, p.text) for i, p in zip(rows, given, strict=True)
            }
    return [found[i] for i in range(len(texts))]


def _tasks(model: ContinualModel, texts: Sequence[str], name: str | None) -> list[Task]:
    """The task of each text: the one that is named, the only one, or the one that is found."""
    known = {data.name: data.task for data in model.stream}
    first = model.stream[0]
    if name is not None or len(known) == 1:
        return [known[name or first.name]] * len(texts)
    # A router reads the text alone, so any task will do.
    asked = [Example(first.task, text, "") for text in texts]
    routes = model.method.route(model.context(), asked)
    if routes is None:
        raise NloraError(f"which task? name one of {', '.join(known)}")
    return [known[model.records[stage - 1].tasks[0]["name"]] for stage in routes]
