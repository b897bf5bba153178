"""A user's own tasks: a YAML list of entries that name files of rows.

    - name: tickets
      train: tickets/train.csv      # paths are relative to the YAML file
      test: tickets/test.csv        # without it a part of the data is held out
      dev: tickets/dev.csv          # optional, like what follows
      instruction: Which team should answer this ticket? Choose one from the option.
      labels: [billing, technical, no]
      columns: {text: title+body, label: team}

Which files are read is in `nlora.data.formats`, which columns in `nlora.data.columns`, chat and
instruction data in `nlora.data.messages`. Without `labels`, answers are free text; `labels: auto`
takes those of the training file. `metric` names what answers are measured by
(`nlora.evaluation.metrics`). A task without `train` is only tested.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from nlora.data.columns import PLAIN, check_columns, named
from nlora.data.examples import check_labels, to_texts
from nlora.data.formats import Source, absolute, read_rows, source
from nlora.data.memory import InMemory
from nlora.data.messages import agreed
from nlora.data.reading import Reading, check_reading, read_task
from nlora.data.rows import STDIN, stop
from nlora.data.task import Task, TaskData
from nlora.data.yaml_nodes import compose
from nlora.errors import Faults, NloraError, shown, unknown

_KEYS = (
    *("name", "train", "test", "dev", "instruction", "labels", "metric"),
    *("columns", "label_names", "encoding", "on_bad_row", "hold_out", "hold_out_seed"),
)
_PATHS = ("train", "test", "dev")
_LONGEST = 255
"""Bytes of the name of a file, on all usual disks."""
AUTO = "auto"
"""In place of labels: those of the training file."""
# A task's name becomes part of a folder's name.
_NAME = re.compile(r"\w[\w .+-]{0,59}")
_NULL = "tag:yaml.org,2002:null"


@dataclass(frozen=True, slots=True)
class _Entry:
    place: str
    task: Task
    train: Source | None
    test: Source | None
    dev: Source | None
    reading: Reading = field(default_factory=Reading)

    def load(self) -> TaskData:
        found = agreed(read_task(self.task, self.train, self.test, self.dev, self.reading))
        return replace(found, origin=self._origin())

    def _origin(self) -> dict[str, Any] | None:
        """The arguments of `task_from_files`, where the rows are not in memory."""
        places = {name: getattr(self, name) for name in _PATHS}
        if any(isinstance(place, InMemory) or place == STDIN for place in places.values()):
            return None
        return {
            **{name: None if place is None else absolute(place) for name, place in places.items()},
            "name": self.task.name,
            "instruction": self.task.instruction,
            "labels": self.task.labels and list(self.task.labels),
            "metric": self.task.metric,
            "reading": asdict(self.reading),
        }


def read_stream(path: Path) -> list[TaskData]:
    """The tasks of a YAML list, in its order.

    Raises NloraError, with file and line, for all that is wrong with the list or with the files
    that it names.
    """
    faults = Faults()
    found = read_tasks(path, faults)
    faults.check()
    return found


def read_tasks(path: Path, faults: Faults) -> list[TaskData]:
    """The tasks of a YAML list that can be read; what is wrong with the others goes to `faults`.

    Raises NloraError when it is no list.
    """
    root = compose(path)
    if not isinstance(root, yaml.SequenceNode) or not root.value:
        raise NloraError(f"{path}: a stream is a YAML list of tasks, each with name, train, test")
    places: dict[str, str] = {}
    loaded: list[TaskData | None] = []
    for node in root.value:
        entry = faults.attempt(lambda node=node: _read_entry(path, node))
        if entry is None:
            continue
        name = entry.task.name
        if name in places:
            faults.found.append(
                f"{entry.place}: task '{name}' is also in {places[name]}; rename one"
            )
            continue
        places[name] = entry.place
        loaded.append(faults.attempt(entry.load))
    return [data for data in loaded if data is not None]


def read_entry(
    path: Path, reading: Mapping[str, Any] | None = None, untrained: bool = False
) -> TaskData:
    """The task of a YAML file that holds one entry, as a mapping or as a list of one.

    `reading` holds fields of `Reading` that win over the entry's. An `untrained` task is one whose
    training file may be its test, since only that is used. Raises NloraError like `read_stream`.
    """
    root = compose(path)
    if isinstance(root, yaml.SequenceNode):
        if len(root.value) != 1:
            raise NloraError(f"{path}: must hold one task, but is a list of {len(root.value)}")
        root = root.value[0]
    if root is None:
        raise NloraError(f"{path}: no task in it")
    entry = _read_entry(path, root)
    if untrained and entry.test == entry.train:
        entry = replace(entry, train=None)
    asked = check_reading(entry.place, replace(entry.reading, **(reading or {})))
    return replace(entry, reading=asked).load()


def task_from_files(
    name: str,
    train: Source | None,
    test: Source | None,
    dev: Source | None = None,
    instruction: str | None = None,
    labels: Sequence[str] | str | None = None,
    reading: Reading | None = None,
    metric: str | None = None,
) -> TaskData:
    """The task whose examples are in these files, as in `read_stream`.

    Without `labels`, answers are free text; `labels` may be a text, "auto" or "A,B". Without
    `test`, a part of the data is held out; without `train`, the task is only tested. `metric` names
    what answers are measured by.

    Raises NloraError, with file and line, for a bad name, bad labels and all that is wrong with
    the files.
    """
    place = f"task {name!r}"
    reading = check_reading(place, reading or Reading())
    if labels == AUTO:
        labels, reading = None, replace(reading, labels_from_data=True)
    if isinstance(labels, str):
        labels = [label.strip() for label in labels.split(",")]
    task = replace(_task(place, name, instruction, labels), metric=metric)
    return _Entry(place, task, train, test, dev, reading).load()


def read_texts(
    path: Source,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    tell: Callable[[str], object] = lambda note: None,
) -> tuple[str, ...]:
    """The texts of a file, without answers; `tell` hears what was chosen and left out.

    A .txt file and standard input (`-`) hold a text a line, blank ones left out; others are read as
    a task's files are.
    Raises NloraError, with file and line, for all that is wrong with the file.
    """
    columns = {target: name for target, name in (columns or {}).items() if target == "text"}
    rows = read_rows(path, "test", stop, encoding, columns, texts=True)
    if (where := str(rows.path)) != str(path):
        tell(f"{where}: the split whose texts are read")
    texts, notes, _ = named(rows, columns, None, stop, answers=False)
    for note in (*rows.notes, *notes):
        tell(note)
    return to_texts(texts, PLAIN)


def _task(place: str, name: str, instruction: str | None, labels: Sequence[str] | None) -> Task:
    if not _NAME.fullmatch(name):
        raise NloraError(
            f"{place}: {shown(name)} cannot name a task; use at most 60 letters, digits, spaces, "
            "and . + - _, beginning with a letter or digit"
        )
    return Task(
        name,
        # A YAML block ends with a line break that nobody means to be in the prompt.
        instruction=(instruction or "").strip() or None,
        labels=None if labels is None else check_labels(labels, place),
        dataset=name,
    )


def _read_entry(path: Path, node: yaml.Node) -> _Entry:
    place = _place(path, node)
    if not isinstance(node, yaml.MappingNode):
        raise NloraError(f"{place}: a task must have keys: name, train, test")
    text: dict[str, str | None] = {}
    lists: dict[str, list[str] | None] = {}
    columns: dict[str, str] = {}
    seen = set()
    for key_node, value in node.value:
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else key_node.id
        if key not in _KEYS:
            raise NloraError(f"{_place(path, key_node)}: {unknown('key', key, _KEYS)}")
        if key in seen:
            raise NloraError(
                f"{_place(path, key_node)}: a second '{key}' in one task; "
                "a new task begins with '- '"
            )
        seen.add(key)
        if key == "labels" and isinstance(value, yaml.ScalarNode) and value.value == AUTO:
            text[key] = AUTO
        elif key in ("labels", "label_names"):
            lists[key] = _read_list(path, value, key)
        elif key == "columns":
            columns = _read_columns(path, value)
        elif not isinstance(value, yaml.ScalarNode):
            raise NloraError(f"{_place(path, value)}: '{key}' must be text")
        else:
            text[key] = None if value.tag == _NULL else value.value
            if key in _PATHS:
                _check_path(_place(path, value), key, value.value)
    name = text.get("name")
    if not name:
        raise NloraError(f"{place}: the task has no 'name'")
    if not text.get("train") and not text.get("test"):
        raise NloraError(f"{place}: the task has no 'test', and no 'train' to hold a part out of")
    train, test, dev = (
        source(where, path.parent) if (where := text.get(key)) else None
        for key in ("train", "test", "dev")
    )
    task = _task(place, name, text.get("instruction"), lists.get("labels"))
    reading = Reading(
        columns=columns,
        encoding=text.get("encoding"),
        label_names=lists.get("label_names"),
        labels_from_data=text.get("labels") == AUTO,
        on_bad_row=text.get("on_bad_row") or "refuse",  # type: ignore[arg-type]
        hold_out=_number(place, text, "hold_out", 0.2),
        hold_out_seed=int(_number(place, text, "hold_out_seed", 0)),
    )
    check_reading(place, reading)
    return _Entry(
        place, replace(task, metric=text.get("metric") or None), train, test, dev, reading
    )


def _check_path(place: str, key: str, name: str) -> None:
    """Raise NloraError for what can name no file anywhere."""
    try:
        given = os.fsencode(name)
        possible = b"\0" not in given and max(map(len, given.split(b"/"))) <= _LONGEST
    except UnicodeEncodeError:  # half a character
        possible = False
    if not possible:
        raise NloraError(f"{place}: '{key}' cannot name a file: {shown(name)}")


def _number(place: str, text: dict[str, str | None], key: str, default: float) -> float:
    value = text.get(key)
    if value is None:
        return default
    try:
        return int(value) if isinstance(default, int) else float(value)
    except ValueError:
        raise NloraError(f"{place}: '{key}' must be a number, not {shown(value)}") from None


def _read_columns(path: Path, node: yaml.Node) -> dict[str, str]:
    if not isinstance(node, yaml.MappingNode) or any(
        not isinstance(inner, yaml.ScalarNode) for pair in node.value for inner in pair
    ):
        raise NloraError(
            f"{_place(path, node)}: 'columns' must be names, as in {{text: review, label: stars}}"
        )
    try:
        return check_columns({key.value: value.value for key, value in node.value})
    except NloraError as error:
        raise NloraError(f"{_place(path, node)}: {error}") from None


def _read_list(path: Path, node: yaml.Node, key: str) -> list[str] | None:
    if isinstance(node, yaml.ScalarNode) and node.tag == _NULL:
        return None
    if not isinstance(node, yaml.SequenceNode):
        raise NloraError(f"{_place(path, node)}: '{key}' must be a list, as in [good, bad]")
    for item in node.value:
        if not isinstance(item, yaml.ScalarNode):
            raise NloraError(f"{_place(path, item)}: a label must be text")
    return [item.value for item in node.value]


def _place(path: Path, node: yaml.Node) -> str:
    return f"{path}, line {node.start_mark.line + 1}"
