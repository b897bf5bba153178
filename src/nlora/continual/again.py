"""A task that was learned before: what it is called and asked now, and what is new about it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from nlora.data.examples import check_labels
from nlora.data.task import Example, Task, TaskData
from nlora.errors import NloraError


def again(known: Task, data: TaskData) -> TaskData:
    """New data of a learned task, as the task is asked from now on.

    What the data does not say stays: its question, its labels, its metric. Labels are added and
    never taken away, since earlier tests have them. Raises NloraError for what cannot be the same
    task: chats and single texts, labels and free answers, two metrics.
    """
    new = data.task
    where = f"'{data.name}' was learned"
    if new.chat != known.chat:
        forms = ("chats", "single texts") if known.chat else ("single texts", "chats")
        raise NloraError(f"{where} from {forms[0]} and not {forms[1]}; give it another name")
    if known.labels is None and new.labels is not None:
        raise NloraError(f"{where} with free answers and not labels; give it another name")
    if new.metric not in (None, known.metric):
        raise NloraError(f"{where} with metric {known.metric}, not {new.metric}")
    labels = known.labels
    if labels is not None:
        given = new.labels or sorted({e.label.strip() for e in (*data.train, *data.test)})
        more = [label for label in given if label not in labels]
        labels = check_labels([*labels, *more], f"task '{data.name}'")
    task = replace(
        known, labels=labels, instruction=new.instruction or known.instruction, metric=known.metric
    )
    return replace(
        data,
        task=task,
        train=_asked(task, data.train),
        test=_asked(task, data.test),
        dev=_asked(task, data.dev),
    )


def _asked(task: Task, examples: Sequence[Example]) -> tuple[Example, ...]:
    strip = task.labels is not None
    return tuple(
        replace(e, task=task, label=e.label.strip() if strip else e.label) for e in examples
    )


def what_is_new(known: TaskData, data: TaskData) -> list[str]:
    """What to tell of new data of a task, given as `again` returns it: the task as it was before.

    `known` has the tests that the directory keeps.
    """
    name, said = data.name, []
    counts = Counter(e.label for e in data.train)
    for label in data.task.labels or ():
        if label not in (known.task.labels or ()):
            rows = f"{counts[label]} of {len(data.train)} training rows"
            said.append(f"'{name}' has a new label: {label} ({rows})")
    if data.task.instruction != known.task.instruction:
        said.append(f"'{name}' is asked otherwise from now on: {data.task.instruction}")
    tested = {e.text for e in known.test}
    seen = sum(e.text in tested for e in data.train)
    if seen:
        said.append(
            f"{seen} of {len(data.train)} training texts of '{name}' are among its earlier tests, "
            "which say less from now on"
        )
    return said
