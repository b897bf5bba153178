"""From files to a task: which rows are wrong, which labels there are, what is held out."""

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from nlora.data.balance import label_counts, told_slips
from nlora.data.columns import PLAIN, named
from nlora.data.examples import check_labels, to_examples
from nlora.data.formats import Source, read_rows, test_split
from nlora.data.holdout import hold_out
from nlora.data.task import Example, Task, TaskData
from nlora.errors import Faults, NloraError, Several, option, unknown

OnBadRow = Literal["refuse", "skip"]
MOST_BAD = 0.05
"""The share of wrong rows above which a file is refused although they may be left out."""
_NAMED = 3
"""How many wrong rows a refusal names."""
_LISTED = 5
"""How many rows that were left out are listed."""
_MANY = 200
"""Labels beyond this number are no labels, but free text."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How the files of a task are read."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Which column is the `text` and which the `label`, where their names do not say it."""
    encoding: str | None = None
    """None is UTF-8."""
    label_names: Sequence[str] | None = None
    """The names of the labels 0, 1, …"""
    labels_from_data: bool = False
    """The task's labels are those of its training file."""
    on_bad_row: OnBadRow = "refuse"
    hold_out: float = 0.2
    """The share of the training file that is tested on where there is no test file."""
    hold_out_seed: int = 0
    """Not a run's seed: runs that differ in it must be tested on the same rows."""


@dataclass(frozen=True, slots=True)
class _Split:
    path: Source
    """With the split's name, where it is one of several."""
    examples: tuple[Example, ...]
    notes: tuple[str, ...] = ()
    bad_rows: int = 0
    names: tuple[str, ...] | None = None
    held_out: bool = False


def check_reading(place: str, reading: Reading) -> Reading:
    """The reading. Raises NloraError for a value that cannot be."""
    if reading.on_bad_row not in ("refuse", "skip"):
        raise NloraError(
            f"{place}: {unknown('on_bad_row', reading.on_bad_row, ['refuse', 'skip'])}"
        )
    if not 0 < reading.hold_out < 1:
        raise NloraError(f"{place}: hold_out is a share between 0 and 1, not {reading.hold_out:g}")
    return reading


def read_task(
    task: Task, train: Source | None, test: Source | None, dev: Source | None, reading: Reading
) -> TaskData:
    """The task with the examples of its files.

    Without `test`, the data set's own test split is taken where it has splits, else a part of
    `train` is held out. Without `train` the task is only tested. Raises NloraError with all that is
    wrong with the files.
    """
    faults = Faults()
    found: dict[str, _Split] = {}
    for split, where in (("train", train), ("test", test), ("dev", dev)):
        if where is None:
            continue
        part = faults.attempt(partial(_read, where, split, task, reading))
        if part is None:
            continue
        if not found:
            part = _doubted(part, task, reading)
            task = faults.attempt(partial(_labelled, task, part, reading)) or task
        found[split] = part
    if train is not None and test is None and "train" in found:
        own = faults.attempt(partial(_own_test, train, task, reading))
        if own is not None:
            found["test"] = own
        else:
            _hold_out(found, reading, faults)
    if {"train", "test"} <= found.keys():
        _compare(found, faults)
    faults.check()
    examples = {split: _with_labels(part.examples, task) for split, part in found.items()}
    return TaskData(
        task,
        train=examples.get("train", ()),
        test=examples["test"],
        dev=examples.get("dev", ()),
        only_tested=train is None,
        notes=tuple(dict.fromkeys(note for part in found.values() for note in part.notes)),
        bad_rows=sum(part.bad_rows for part in found.values()),
    )


def _read(source: Source, split: str, task: Task, reading: Reading) -> _Split:
    """The examples of a file. Raises NloraError with the first rows that are wrong."""
    bad: list[str] = []
    rows = read_rows(source, split, bad.append, reading.encoding, reading.columns)
    rows, notes, names = named(rows, reading.columns, reading.label_names, bad.append)
    examples = to_examples(rows, task, PLAIN, bad.append) if rows.values else ()
    if reading.labels_from_data and task.labels is None:  # labels that are known are told so, too
        examples = tuple(replace(example, label=example.label.strip()) for example in examples)
    nothing = f"{rows.path}: no examples"
    bad = [fault for fault in bad if fault != nothing]
    total = len(examples) + len(bad)
    if not total:
        raise NloraError(nothing)
    if not bad:
        return _Split(rows.path, examples, tuple(notes), 0, names)
    if reading.on_bad_row == "refuse" or not examples:
        raise Several(_refusal(bad, rows.path, total))
    listed = "; ".join(bad[:_LISTED])
    if len(bad) > MOST_BAD * total:
        raise NloraError(
            f"{rows.path}: {len(bad)} of {total} rows are wrong, more than {MOST_BAD:.0%}: {listed}"
        )
    notes.append(f"{rows.path}: {len(bad)} of {total} rows left out: {listed}")
    return _Split(rows.path, examples, tuple(notes), len(bad), names)


def _refusal(bad: Sequence[str], path: Source, total: int) -> list[str]:
    """The first wrong rows, and what leaves them out where they are few enough."""
    more = len(bad) - _NAMED
    way = f"{option('skip_bad_rows', True)}, in YAML on_bad_row: skip, leaves out such rows"
    hint = f"; {way}" if len(bad) <= MOST_BAD * total else f"; {way} where at most 5 % are wrong"
    if more <= 0:
        return [*bad[:-1], bad[-1] + hint]
    return [*bad[:_NAMED], f"{path}: {more} more rows{hint}"]


def _labelled(task: Task, train: _Split, reading: Reading) -> Task:
    """The task with its labels, where they come with the data."""
    if task.labels is not None:
        return task
    if train.names:
        return replace(task, labels=check_labels(train.names, f"{train.path}"))
    if not reading.labels_from_data:
        return task
    counts = Counter(example.label for example in train.examples)
    if len(counts) > _MANY:
        raise NloraError(
            f"{train.path}: {len(counts)} different labels in {len(train.examples)} rows are "
            "too many to choose from; leave out labels for free text"
        )
    return replace(task, labels=check_labels(sorted(counts), f"{train.path}"))


def _doubted(first: _Split, task: Task, reading: Reading) -> _Split:
    """The split, with a note on labels that may be misspelt where nobody has listed them."""
    every = sorted({e.label for e in first.examples}) if reading.labels_from_data else []
    if task.labels is not None or first.names or len(every) > _MANY:
        return first
    told = told_slips(label_counts(first.examples, every or None))
    return first if told is None else replace(first, notes=(*first.notes, f"{first.path}: {told}"))


def _with_labels(examples: Sequence[Example], task: Task) -> tuple[Example, ...]:
    """The examples, of which some may have been read before their task's labels were known."""
    if all(example.task.labels == task.labels for example in examples):
        return tuple(examples)
    known = {old: replace(old, labels=task.labels) for old in {e.task for e in examples}}
    return tuple(replace(example, task=known[example.task]) for example in examples)


def _own_test(train: Source, task: Task, reading: Reading) -> _Split | None:
    """The test split that comes with the training split, if it has labels."""
    name = test_split(train)
    if name is None:
        return None
    part = _read(train, "test", task, reading)
    note = f"{train}: tested on its own split '{name}'"
    return replace(part, notes=(*part.notes, note))


def _hold_out(found: dict[str, _Split], reading: Reading, faults: Faults) -> None:
    whole = found["train"]
    train, test = hold_out(whole.examples, reading.hold_out, reading.hold_out_seed)
    if not train or not test:
        faults.found.append(f"{whole.path}: too few texts to hold a part out; give a test file")
        return
    note = (
        f"{whole.path}: no test file, so {len(test)} of {len(whole.examples)} examples "
        f"({reading.hold_out:.0%}) are held out for testing"
    )
    notes = [*whole.notes, note]
    alone = sorted({e.label for e in test if e.task.labels} - {e.label for e in train})
    if alone:
        shown = textwrap.shorten(", ".join(f"'{label}'" for label in alone), 80, placeholder=" ...")
        notes.append(f"{whole.path}: labels of one text that is held out, so not trained: {shown}")
    found["train"] = replace(whole, examples=train, notes=tuple(notes), held_out=True)
    found["test"] = _Split(whole.path, test)


def _compare(found: dict[str, _Split], faults: Faults) -> None:
    """Tell where what is tested was trained, which makes accuracy memory."""
    train, test = found["train"], found["test"]
    if train.path == test.path and not train.held_out:
        note = f"{test.path}: train and test are the same file, so accuracy is memory"
        if faults.found:  # by itself it stops nobody who wants to see just that
            faults.found.append(note)
        found["test"] = replace(test, notes=(*test.notes, note))
        return
    if train.examples and len({e.label for e in train.examples}) == 1:
        note = f"{train.path}: all training examples have one label, '{train.examples[0].label}'"
        found["train"] = replace(train, notes=(*train.notes, note))
    texts = {e.text for e in train.examples}
    shared = sum(e.text in texts for e in test.examples)
    if shared:
        note = f"{test.path}: {shared} of {len(test.examples)} test texts are also in train"
        found["test"] = replace(test, notes=(*test.notes, note))
