"""`nlora.Task`: a task from what a script has, and what else stands for one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from nlora.api.arguments import by_number, check, in_order, plain
from nlora.data.balance import label_counts
from nlora.data.columns import check_columns, parse_columns
from nlora.data.files import read_entry, task_from_files
from nlora.data.formats import YAML, Source, is_rows, source, title
from nlora.data.memory import InMemory
from nlora.data.reading import Reading
from nlora.data.streams import KNOWN, canonical, check_task, load_stream
from nlora.data.task import TaskData
from nlora.errors import NloraError, option, shown
from nlora.plan.given import named_file

if TYPE_CHECKING:
    from nlora.evaluation.own_metrics import Own

Rows: TypeAlias = Iterable[Any] | Callable[[], Iterable[Any]] | str | Path
"""A list (or any iterable) of rows, a table of pandas, a `Dataset` of `datasets`, a function that
returns one of these, or a file: its path or `hf://` name. A row is a mapping with text and label,
(text, label), or a conversation."""


class Task:
    """A task to learn or to test: its examples, and how they are asked.

    `train`, `test` and `dev` are `Rows`. Without `test` a part of `train` is held out; without
    `train` the task is only tested. `labels` are the answers to choose from, "auto" those in the
    training rows; without them answers are free text. `metric` is a name
    (`nlora.evaluation.metrics`) or a function that is given answers and labels, two lists of texts,
    and returns per cent. `columns` says which column is which, where their names do not:
    `{"text": "title+body", "label": "team"}`. `label_names` are the names of the labels 0, 1, …, a
    list or, as a model's `id2label` has them, by number.

    All rows are read at once. Raises NloraError, with the row, for all that is wrong with them.

    >>> import nlora
    >>> rows = [("my card was charged twice", "billing"), ("it does not start", "technical")]
    >>> nlora.Task("tickets", train=rows, test=rows[:1], labels="auto", instruction="Which team?")
    Task('tickets', 2 to train, 1 to test, labels billing, technical)
    """

    def __init__(
        self,
        name: str,
        train: Rows | None = None,
        test: Rows | None = None,
        dev: Rows | None = None,
        *,
        instruction: str | None = None,
        labels: Sequence[str] | str | None = None,
        metric: str | Own | None = None,
        columns: Mapping[str, str] | str | None = None,
        label_names: Sequence[str] | None = None,
        encoding: str | None = None,
        skip_bad_rows: bool = False,
        hold_out: float = 0.2,
        hold_out_seed: int = 0,
    ) -> None:
        check(name=name, instruction=instruction, labels=labels, label_names=label_names)
        labels, label_names = in_order("labels", labels), by_number(label_names)
        hold_out, hold_out_seed = plain(hold_out), plain(hold_out_seed)
        check(encoding=encoding, hold_out=hold_out, hold_out_seed=hold_out_seed)
        if train is None and test is None:
            raise NloraError(f"task {name!r} has neither train nor test")
        reading = reading_of(
            columns,
            encoding=encoding,
            label_names=label_names,
            skip_bad_rows=skip_bad_rows,
            hold_out=hold_out,
            hold_out_seed=hold_out_seed,
        )
        parts = {"train": train, "test": test, "dev": dev}
        found = {k: rows_of(v, f"task {name!r}, {k}") for k, v in parts.items() if v is not None}
        self.data: TaskData = task_from_files(
            name,
            found.get("train"),
            found.get("test"),
            found.get("dev"),
            instruction,
            labels,
            reading,
            metric_name(metric),
        )
        """The examples as the rest of the library has them."""

    @property
    def name(self) -> str:
        """What it is called in tables, and in the folders of a model."""
        return self.data.name

    @property
    def notes(self) -> tuple[str, ...]:
        """What reading its rows decided and left out, in words."""
        return self.data.notes

    def __repr__(self) -> str:
        known = self.data.task.labels
        answers = "free answers" if known is None else f"labels {', '.join(known)}"
        split = f"{len(self.data.train)} to train, {len(self.data.test)} to test"
        return f"Task({self.name!r}, {split}, {_briefly(answers)})"


AnyTask: TypeAlias = Task | TaskData | str | Path | Callable[[], "Task | TaskData"]
"""What stands for a task: one, a file of rows or a YAML file of one, a data set of the benchmark,
or a function that makes one."""


def rows_of(given: Rows, place: str) -> Source:
    """Where the rows are. `place` is what messages call those in memory."""
    if isinstance(given, str):
        return source(given, Path())
    return given if isinstance(given, Path) else InMemory(given, place)


def reading_of(
    columns: Mapping[str, str] | str | None, skip_bad_rows: bool = False, **more: Any
) -> Reading:
    """How rows are read. Raises NloraError for columns that cannot be."""
    check(columns=columns)
    parsed = parse_columns(columns) if isinstance(columns, str) else check_columns(columns or {})
    return Reading(columns=parsed, on_bad_row="skip" if skip_bad_rows else "refuse", **more)


def metric_name(metric: str | Own | None) -> str | None:
    """The name of a metric; a function is registered under its own.

    Raises NloraError for an unknown name.
    """
    if metric is None:
        return None
    from nlora.evaluation.metrics import metric as known
    from nlora.evaluation.own_metrics import register

    if not isinstance(metric, str):
        return register(metric)
    if ":" not in metric:  # a function may be handed over later
        known(metric)
    return metric


def task_of(given: AnyTask, data: str | Path | None = None) -> TaskData:
    """The task that is meant; `data` is the benchmark's folder.

    Raises NloraError for a name that is none, and as reading its files does.
    """
    if callable(given):
        given = given()
    if isinstance(given, Task):
        return given.data
    if isinstance(given, TaskData):
        return given
    if not isinstance(given, str | Path):
        raise NloraError(f"a task is a nlora.Task, a file or a name, not {type(given).__name__}")
    return named_task(str(given), folder(data))


def several(given: Any, what: str) -> Sequence[Any]:
    """What stands for tasks, one alone as a list of one. Raises NloraError for what is none."""
    if isinstance(given, Task | TaskData | str | Path) or callable(given):
        return [given]
    if isinstance(given, bytes | Mapping) or not isinstance(given, Iterable):
        raise NloraError(
            f"{what} is a list of tasks, each a nlora.Task, a file or a name, not "
            f"{type(given).__name__}"
        )
    return list(given)


def named_task(
    task: str,
    data: Path | None = None,
    name: str | None = None,
    test: str | None = None,
    labels: str | None = None,
    **asked: Any,
) -> TaskData:
    """The task of a file of rows, of a YAML file of one task, or of a data set of the benchmark.

    `name`, `test`, `labels` and `asked`, fields of `Reading`, are for files of rows. Raises
    NloraError where they are not, for a stream, and as reading the files does.
    """
    if _is_file(task):
        train, here = source(task, Path()), Path()
        tests, reading = source(test, here) if test else None, Reading(**asked)
        return task_from_files(name or title(train), train, tests, labels=labels, reading=reading)
    path = Path(os.path.expanduser(task))
    own = path.suffix.lower() in YAML
    if not own:
        check_task(task, data)
    for flag, value, has in (
        ("--test", test, "tests"),
        ("--labels", labels, "labels"),
        ("--name", name, "a name"),
    ):
        if value is not None:
            raise NloraError(
                f"{flag} is for a file of rows as --task; '{task}' has {has} of its own"
            )
    if own:
        return read_entry(path, asked)
    if asked:
        raise NloraError(f"'{task}' is a data set of the benchmark, which is read as it is")
    stream = load_stream(task, data)
    if len(stream) != 1:
        raise NloraError(f"{option('task')} takes one task, '{task}' is a stream; use `nlora run`")
    return stream[0]


def _is_file(name: str) -> bool:
    """Whether a name is one of rows, and not of a data set of the benchmark."""
    return is_rows(name) and canonical(name) not in KNOWN


def watched_task(given: AnyTask, data: str | Path | None = None) -> TaskData:
    """The task that is meant, only to be tested: its tests, or of a file of rows all of them.

    A text is `[NAME[:LABELS]=]FILE` (as in `--knows`), or a data set of the benchmark.
    Raises NloraError as `task_of` does.
    """
    if not isinstance(given, str | Path):
        return _only_tested(task_of(given, data))
    text = str(given)
    whole = isinstance(given, Path) or os.path.exists(os.path.expanduser(text))  # month=3/a.csv
    name, labels, place = named_file(text) if "=" in text and not whole else ("", None, text)
    if labels == "" or (labels and not name):
        raise NloraError(
            f"{option('watch')} takes FILE, NAME=FILE, NAME:auto=FILE or NAME:A,B=FILE (with "
            f"labels), a YAML file of one task or a data set, not '{text}'"
        )
    if _is_file(place):
        rows = source(place, Path())
        found = task_from_files(name or title(rows), None, rows, labels=labels)
        answers = label_counts(found.test, None)
        if labels or found.task.chat or not answers:
            return found
        hint = (
            f"answers of '{found.name}' are free text; "
            f"{option('watch', f'{found.name}:auto=FILE')} makes the {len(answers)} in it labels"
        )
        return replace(found, notes=(*found.notes, hint))
    path = Path(os.path.expanduser(place))
    if path.suffix.lower() in YAML:
        found = read_entry(path)
    else:
        stream = load_stream(place, folder(data))
        if len(stream) != 1:
            raise NloraError(f"each {option('watch')} takes one task, '{place}' is a stream")
        found = stream[0]
    if name:
        raise NloraError(f"{option('watch', text)}: '{place}' has a name of its own")
    return _only_tested(found)


def _only_tested(data: TaskData) -> TaskData:
    return replace(data, train=(), dev=(), only_tested=True, rows=None)


def folder(path: str | Path | None) -> Path | None:
    """A path that may be a text, `~` expanded."""
    return None if path is None else Path(path).expanduser()


def _briefly(text: str) -> str:
    """A text that may be long, for one line."""
    return text if len(text) <= 60 and text.isprintable() else shown(text, 60)
