"""What is in a data folder, a stream or a file, and all that is wrong: `nlora data check`."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from nlora.data.balance import label_counts, majority, told_free
from nlora.data.benchmark import (
    SPLITS,
    ambiguous,
    find_datasets,
    read_instruction,
    read_labels,
    read_split,
    read_task,
)
from nlora.data.comparing import normalise
from nlora.data.files import read_tasks, task_from_files
from nlora.data.formats import is_rows, source, title
from nlora.data.reading import Reading
from nlora.data.task import Example, Task, TaskData
from nlora.errors import Faults, NloraError

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class DatasetReport:
    """One data set: how many examples could be read, and what a reader of results should know.

    `majority` is the share of the most frequent label in test, what a constant answer scores (None
    without test, and for free text). `test_in_train` counts test examples whose text, without case
    and punctuation, is also in train. `dev_is_test` warns that whoever selects on dev has seen
    test.
    """

    name: str
    group: str
    labels: int | None
    """None of free text."""
    train: int
    dev: int
    test: int
    majority: float | None
    test_in_train: int
    dev_is_test: bool
    counts: dict[str, int] = field(default_factory=dict)
    """Examples of train by label, the most frequent first; empty for free text."""
    notes: tuple[str, ...] = ()
    """What reading decided and left out."""


@dataclass(frozen=True, slots=True)
class DataReport:
    """The data sets of a folder by name, and every problem, in one line with its file."""

    datasets: tuple[DatasetReport, ...]
    problems: tuple[str, ...]


def check(
    data: Path | str, labels: str | None = None, reading: Reading | None = None
) -> DataReport:
    """Read every data set, and go on after a problem.

    `data` is a folder in the benchmark's layout, a YAML stream, or a file of rows, of which
    `labels` and `reading` say how it is read. Raises NloraError only when it is none of these, or a
    folder without data sets.
    """
    path = Path(data)
    if is_rows(str(data)):
        return _check_tasks(lambda faults: _task_alone(str(data), labels, reading, faults))
    if labels is not None or reading is not None:
        raise NloraError(f"{data} says itself how it is read; options for that are of a file alone")
    if path.is_file():
        return _check_tasks(lambda faults: read_tasks(path, faults))
    found = find_datasets(path)
    if not found:
        raise NloraError(f"no data sets in {data}: no folder <Group>/<Dataset> with train.json")
    problems: list[str] = []
    reports = []
    for name, folders in sorted(found.items()):
        if len(folders) > 1:
            problems.append(ambiguous(name, folders))
        reports += [_check(name, folder, problems) for folder in folders]
    return DataReport(tuple(reports), tuple(problems))


def _task_alone(
    name: str, labels: str | None, reading: Reading | None, faults: Faults
) -> list[TaskData]:
    where, how = source(name, Path()), {"labels": labels, "reading": reading}
    found = faults.attempt(lambda: task_from_files(title(where), where, None, **how))
    if found is None:
        return []
    answers = label_counts(found.train, found.task.labels)
    if answers and found.task.labels is None:
        found = replace(found, notes=(*found.notes, told_free(answers)))
    return [found]


def _check_tasks(read: Callable[[Faults], list[TaskData]]) -> DataReport:
    faults = Faults()
    reports = tuple(_report(data) for data in read(faults))
    return DataReport(reports, tuple(faults.found))


def _check(name: str, folder: Path, problems: list[str]) -> DatasetReport:
    def attempt(read: Callable[[], _T], otherwise: _T) -> _T:
        try:
            return read()
        except NloraError as error:
            problems.append(str(error))
            return otherwise

    unread = False
    if (folder / "task.json").is_file():
        plain = Task(name, group=folder.parent.name, dataset=folder.name)
        task = attempt(lambda: read_task(name, folder), plain)
    else:
        attempt(lambda: read_instruction(folder), None)
        labels = attempt(lambda: read_labels(folder), None)
        unread = labels is None
        task = Task(name, labels=labels, group=folder.parent.name, dataset=folder.name)
    left_out = {split: Counter[str]() for split in SPLITS}
    train, dev, test = (
        attempt(
            lambda split=split: read_split(folder, split, task, problems.append, left_out[split]),
            (),
        )
        for split in SPLITS
    )
    notes = tuple(
        f"{folder / split}.json: {count} rows with label '{label}', which means none, left out"
        for split, counts in left_out.items()
        for label, count in counts.items()
    )
    report = _report(TaskData(task, train, test, dev, notes=notes))
    return replace(report, labels=0) if unread else report


def _report(data: TaskData) -> DatasetReport:
    known = {normalise(example.text) for example in data.train}
    labels = data.task.labels
    return DatasetReport(
        name=data.name,
        group=data.task.group,
        labels=None if labels is None else len(labels),
        train=len(data.train),
        dev=len(data.dev),
        test=len(data.test),
        majority=majority(label_counts(data.test, labels)),
        test_in_train=sum(normalise(example.text) in known for example in data.test),
        dev_is_test=bool(data.dev) and _content(data.dev) == _content(data.test),
        counts=label_counts(data.train, labels),
        notes=data.notes,
    )


def _content(split: tuple[Example, ...]) -> list[tuple[str, str]]:
    return sorted((example.text, example.label) for example in split)
