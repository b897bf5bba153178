"""A task that was learned before: what it is called and asked now, and what is new about it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from nlora.data.examples import check_labels
from nlora.data.task import Example, Task, TaskData
from nlora.errors import NloraError, option
from nlora.plan.budgets import LIMITS, check_same, in_words
from nlora.plan.config import with_todays_names
from nlora.plan.resolve import Plan, sampled
from nlora.store.directory import ModelDirectory, StageRecord
from nlora.store.records import standing


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


def perhaps_known(known: Sequence[TaskData], data: TaskData) -> str | None:
    """What to ask where new data under a new name may be more of a learned task.

    It may where at least half of its labels are a task's.
    """
    given = set(data.task.labels or (e.label.strip() for e in data.train))
    for task in known:
        shared = [label for label in task.task.labels or () if label in given]
        if shared and 2 * len(shared) >= len(given):
            return (
                f"'{data.name}' becomes a task of its own, though '{task.name}' has labels of it "
                f"({', '.join(shared[:5])}{', …' if len(shared) > 5 else ''}); if it is more of "
                f"'{task.name}': {option('name', task.name)}"
            )
    return None


def learned_from(plan: Plan, task: TaskData, directory: ModelDirectory) -> StageRecord | None:
    """The stage that has learned a task from the same data and stands, if there is one.

    What the data does not say, as its labels, is taken to be what each stage was asked.
    """
    stored = directory.config()
    for record in standing(directory.stages()):
        values = [value for value in record.tasks if value["name"] == task.name]
        if not values:
            continue
        then = record.budget or {name: stored.get(name) for name in LIMITS}
        limits = {name: then.get(name) for name in LIMITS}
        try:
            asked = again(Task.from_json(values[0]), task)
        except NloraError:  # it could not have been learned here
            continue
        used = sampled(asked, plan.config.model_copy(update=limits))
        if record.fingerprints.get(task.name) == used.fingerprint():
            return record
    return None


def same_budget(plan: Plan, task: TaskData, record: StageRecord, directory: ModelDirectory) -> str:
    """What to tell where a stage that is there is asked for again.

    Raises NloraError if it is asked for with another budget.
    """
    stored = directory.config()
    then = record.budget or {name: stored.get(name) for name in LIMITS}
    check_same(plan, then, with_todays_names(stored.get("settings", {})), task.name)
    limits = {name: then.get(name) for name in LIMITS}
    used = sampled(task, plan.config.model_copy(update=limits)).used()
    return f"{directory.path} has learned '{task.name}' already ({in_words(used)}), nothing to do"
