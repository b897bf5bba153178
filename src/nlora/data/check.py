"""What is in a data folder, and all that is wrong with it: `nlora data check`."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from nlora.data.benchmark import (
    SPLITS,
    ambiguous,
    find_datasets,
    read_instruction,
    read_labels,
    read_split,
    read_task,
)
from nlora.data.examples import normalise
from nlora.data.task import Example, Task
from nlora.errors import NloraError

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class DatasetReport:
    """One data set: how many examples could be read, and what a reader of results should know.

    `majority` is the share of the most frequent label in test, what a constant answer scores (None
    without test). `test_in_train` counts test examples whose text, without case and punctuation,
    is also in train. `dev_is_test` warns that whoever selects on dev has seen test.
    """

    name: str
    group: str
    labels: int
    train: int
    dev: int
    test: int
    majority: float | None
    test_in_train: int
    dev_is_test: bool


@dataclass(frozen=True, slots=True)
class DataReport:
    """The data sets of a folder by name, and every problem, in one line with its file."""

    datasets: tuple[DatasetReport, ...]
    problems: tuple[str, ...]


def check(data: Path) -> DataReport:
    """Read every data set of a folder in the benchmark's layout, and go on after a problem.

    Raises NloraError only when `data` is no folder, or one without data sets.
    """
    found = find_datasets(data)
    if not found:
        raise NloraError(f"no data sets in {data}: no folder <Group>/<Dataset> with train.json")
    problems: list[str] = []
    reports = []
    for name, folders in sorted(found.items()):
        if len(folders) > 1:
            problems.append(ambiguous(name, folders))
        reports += [_check(name, folder, problems) for folder in folders]
    return DataReport(tuple(reports), tuple(problems))


def _check(name: str, folder: Path, problems: list[str]) -> DatasetReport:
    def attempt(read: Callable[[], _T], otherwise: _T) -> _T:
        try:
            return read()
        except NloraError as error:
            problems.append(str(error))
            return otherwise

    if (folder / "task.json").is_file():
        plain = Task(name, group=folder.parent.name, dataset=folder.name)
        task = attempt(lambda: read_task(name, folder), plain)
    else:
        attempt(lambda: read_instruction(folder), None)
        labels = attempt(lambda: read_labels(folder), None)
        task = Task(name, labels=labels, group=folder.parent.name, dataset=folder.name)
    train, dev, test = (
        attempt(lambda split=split: read_split(folder, split, task, problems.append), ())
        for split in SPLITS
    )
    counts = Counter(example.label for example in test)
    known = {normalise(example.text) for example in train}
    return DatasetReport(
        name=name,
        group=task.group,
        labels=len(task.labels or ()),
        train=len(train),
        dev=len(dev),
        test=len(test),
        majority=max(counts.values()) / len(test) if test else None,
        test_in_train=sum(normalise(example.text) in known for example in test),
        dev_is_test=bool(dev) and _content(dev) == _content(test),
    )


def _content(split: tuple[Example, ...]) -> list[tuple[str, str]]:
    return sorted((example.text, example.label) for example in split)
