"""What a trained model answers to texts that it has not seen."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nlora import processes
from nlora.data.task import Example, Task, TaskData
from nlora.errors import NloraError, unknown
from nlora.training.finished import restored, tasks_of
from nlora.training.progress import Watcher
from nlora.training.run import heard


class Answer(NamedTuple):
    """A text, the task that it was asked as, and what the model answered."""

    text: str
    task: str
    answer: str


@processes.together()
def predict(
    model_dir: Path, texts: Sequence[str], task: str | None = None, watcher: Watcher | None = None
) -> list[Answer]:
    """The answers of the model that `run` or `learn` has made, in the texts' order.

    A text is asked as the task's examples were, with its instruction and labels. `task` names a
    learned one; without it there must be one alone, or a method that finds it by the input
    (`routing=input`). Nothing is written. Raises NloraError if there is no model or no such task.
    """
    learned = tasks_of(model_dir)
    names = [data.name for data in learned]
    if task is not None and task not in names:
        raise unknown("task", task, names)
    learner = restored(model_dir, learned, heard(watcher))
    asked = _tasks(learner, texts, task)
    answers: dict[int, Answer] = {}
    for one in dict.fromkeys(asked):
        rows = [i for i, of_row in enumerate(asked) if of_row == one]
        data = TaskData(one, train=(), test=tuple(Example(one, texts[i], "") for i in rows))
        found = learner.evaluate([data])[one.name]
        answers |= {i: Answer(texts[i], one.name, p.text) for i, p in zip(rows, found, strict=True)}
    return [answers[i] for i in range(len(texts))]


def _tasks(learner: Any, texts: Sequence[str], name: str | None) -> list[Task]:
    """The task of each text: the one that is named, the only one, or the one that is found."""
    known = {data.name: data.task for data in learner.stream}
    first = learner.stream[0]
    if name is not None or len(known) == 1:
        return [known[name or first.name]] * len(texts)
    # A router reads the text alone, so any task will do.
    routes = learner.method.route(learner, [Example(first.task, text, "") for text in texts])
    if routes is None:
        raise NloraError(f"which task? name one of {', '.join(known)}")
    return [known[learner.records[stage - 1].tasks[0]["name"]] for stage in routes]
