"""A model measured again: on the tests that it kept or on a new file, now or as it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nlora import endings
from nlora.continual.agreement import stored_plan
from nlora.continual.tasks import only_tested, stage_number
from nlora.data.messages import agreed
from nlora.data.reading import Reading, read_task
from nlora.data.task import Example, TaskData
from nlora.errors import NloraError, option, unknown
from nlora.progress import Progress, spoken
from nlora.store.directory import ModelDirectory, StageRecord

if TYPE_CHECKING:
    from nlora.continual.model import ContinualModel
    from nlora.data.formats import Source
    from nlora.evaluation.answers import Prediction


class Wanted(NamedTuple):
    """What is to be measured."""

    tasks: list[TaskData]
    """With the tests that are asked."""
    known: list[TaskData]
    """All that the model has learned or is only tested on."""
    stage: int | None
    """After which stage; None is the last."""
    task: str | None
    data: str | None
    """Where the tests are, if they are not the directory's."""


def wanted(
    directory: ModelDirectory,
    learned: Sequence[TaskData],
    task: str | None = None,
    data: Source | TaskData | None = None,
    after: str | None = None,
    reading: Reading | None = None,
    progress: Progress | None = None,
) -> Wanted:
    """What `evaluate` is asked for. Raises NloraError for what is not there, or a bad file.

    `data` may be the tests of a task that is read already.
    """
    stage = None if after is None else stage_number(directory.stages(), after)
    known = [*learned, *only_tested(directory)]
    title = f"tests of '{data.name}'" if isinstance(data, TaskData) else str(data)
    asked = [_chosen(known, task, title)] if task is not None or data is not None else known
    if data is not None:
        if not isinstance(data, TaskData):
            data = agreed(read_task(asked[0].task, None, data, None, reading or Reading()))
        asked = [tests_in(data, asked[0], title)]
        for note in asked[0].notes:
            spoken(progress).message(note)
    return Wanted(asked, known, stage, task, None if data is None else title)


@endings.together()
def evaluate(
    model_dir: Path,
    task: str | None = None,
    data: Source | None = None,
    after: str | None = None,
    reading: Reading | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """What the model of a directory scores: `tasks`, each with accuracy and the like; `answers`.

    Every task that was learned or is only tested is asked by default, on the tests that the
    directory keeps and as `learn` asks them. A `task` that is named is answered by the model as it
    stood for it, as by `predict`. `data` is a file of rows of a task to test with instead. `after`
    is a stage, by number or name: the model as it was then; 0 is the base model. `named` says that
    a task was told which else is found by the text, `learned_again` to which tasks later stages
    have brought tests, so that nothing was recorded of these then. Nothing is written. Raises
    NloraError.
    """
    directory, progress = ModelDirectory(model_dir), spoken(progress)
    plan = stored_plan(directory)
    plan.check_metrics()
    asked = wanted(directory, plan.stream, task, data, after, reading, progress)
    from nlora.continual.model import ContinualModel  # slow, and not for what is refused

    return evaluated(ContinualModel.begin(plan, directory, progress), asked)


def evaluated(model: ContinualModel, asked: Wanted) -> dict[str, Any]:
    """`evaluate` of a model in memory, which is as before afterwards."""
    last = len(model.records)
    stage = last if asked.stage is None else asked.stage
    with model.over(asked.known), model.standing(stage) if stage < last else nullcontext():
        answers = model.evaluate(asked.tasks, named=asked.task is not None)
        found = measured(model, asked.tasks, answers)
        records = model.records
    since: set[str] = set()
    if asked.data is None:
        zero = model.directory.zero_shot() if asked.stage == 0 else None
        record = records[-1] if records else zero
        since = _learned_again(model.directory.stages(), stage)
        then = {} if record is None else record.accuracy
        for row in found:
            row["recorded"] = None if row["task"] in since else then.get(row["task"])
    return {
        "path": str(model.directory.path),
        "after": len(records),
        "data": asked.data,
        "named": asked.task is not None and model.method.routes_by_input,
        "learned_again": [row["task"] for row in found if row["task"] in since],
        "tasks": found,
        "answers": [row for name, rows in answers.items() for row in _rows(name, rows)],
    }


def _learned_again(records: Sequence[StageRecord], stage: int) -> set[str]:
    """The tasks to which stages after this one have brought more: tests, and perhaps labels."""
    then = [known["name"] for record in records[:stage] for known in record.tasks]
    later = Counter(known["name"] for record in records[stage:] for known in record.tasks)
    return {task for task, stages in later.items() if stages > 1 or task in then}


def measured(
    model: ContinualModel, tasks: Sequence[TaskData], answers: dict[str, list[Prediction]]
) -> list[dict[str, Any]]:
    """What answers say of each task: accuracy, among labels, off the list, and by label."""
    from nlora.evaluation.answers import among_labels, off_list
    from nlora.evaluation.metrics import by_label

    accuracy, found = model.measured(answers), []
    for data in tasks:
        rows, labels = answers[data.name], data.task.labels
        likely = among_labels(rows) if labels else None
        found.append(
            {
                "task": data.name,
                "metric": data.task.metric or "exact",
                "examples": len(rows),
                "accuracy": accuracy[data.name],
                "among_labels": model.measured({data.name: likely})[data.name] if likely else None,
                "off_list": off_list(rows, labels) if labels else None,
                "by_label": by_label(rows, labels) if labels else None,
            }
        )
    return found


def tests_in(read: TaskData, known: TaskData, title: str) -> TaskData:
    """The tests of what was read, as tests of a task that was learned.

    Raises NloraError where they cannot be: chats and single texts, a label that it has not.
    """
    if read.task.chat != known.task.chat:
        kinds = {True: "chats", False: "single texts"}
        raise NloraError(
            f"{title} holds {kinds[read.task.chat]}, and '{known.name}' was trained on "
            f"{kinds[known.task.chat]}"
        )
    if known.task.labels is not None:
        strange = [e.label for e in read.test if e.label not in known.task.labels]
        if strange:
            raise unknown(f"label in {title}:", strange[0], known.task.labels)
    test = tuple(Example(known.task, e.text, e.label, e.place) for e in read.test)
    return replace(known, test=test, notes=read.notes)


def _chosen(known: Sequence[TaskData], task: str | None, title: str) -> TaskData:
    """The task that is named, or the only one. Raises NloraError if there is none or several."""
    if task is None and len(known) == 1:
        return known[0]
    if task is None:
        names = ", ".join(one.name for one in known)
        raise NloraError(f"of which task is {title}? name one of {names} as {option('task')}")
    found = next((one for one in known if one.name == task), None)
    if found is None:
        raise unknown("task", task, [one.name for one in known])
    return found


def _rows(task: str, answers: Sequence[Prediction]) -> list[dict[str, Any]]:
    return [
        {"task": task, "text": p.source, "label": p.label, "answer": p.text, "correct": p.correct}
        | ({} if p.likely is None else {"likely": p.likely})
        for p in answers
    ]
