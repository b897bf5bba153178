"""What a trained model answers to texts that it has not seen."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nlora import processes
from nlora.data.task import Example, Task, TaskData
from nlora.errors import NloraError, unknown
from nlora.models.catalog import resolve
from nlora.store.directory import ModelDirectory
from nlora.training.config import plan
from nlora.training.progress import Silent, Watcher
from nlora.training.run import learned_tasks, settle, stored_config


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
    directory = ModelDirectory(model_dir)
    if not directory.exists():
        raise NloraError(f"{model_dir} holds no model")
    learned = learned_tasks(directory)
    if not learned:
        raise NloraError(f"{model_dir} has learned no task yet")
    names = [data.name for data in learned]
    if task is not None and task not in names:
        raise unknown("task", task, names)
    learner = _restored(directory, learned, watcher or Silent())
    asked = _tasks(learner, texts, task)
    answers: dict[int, Answer] = {}
    for one in dict.fromkeys(asked):
        rows = [i for i, of_row in enumerate(asked) if of_row == one]
        data = TaskData(one, train=(), test=tuple(Example(one, texts[i], "") for i in rows))
        found = learner.evaluate([data])[one.name]
        answers |= {i: Answer(texts[i], one.name, p.text) for i, p in zip(rows, found, strict=True)}
    return [answers[i] for i in range(len(texts))]


def _restored(directory: ModelDirectory, learned: Sequence[TaskData], watcher: Watcher) -> Any:
    """The model as the last stage left it."""
    from nlora.models.backbone import load
    from nlora.training.learner import Learner, weights_dtype

    config = stored_config(directory)
    resolved = resolve(config.model)
    planned, _ = settle(plan(config, resolved.recommended), directory, None)
    watcher.message(f"loading {config.model}")
    learner = Learner(planned, load(resolved, weights_dtype(planned)), directory, learned, watcher)
    learner.restore()
    return learner


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
