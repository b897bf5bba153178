"""A user's own tasks: a YAML list of entries that name JSONL or CSV files (or JSON arrays).

    - name: tickets
      train: tickets/train.csv      # paths are relative to the YAML file
      test: tickets/test.csv
      dev: tickets/dev.csv          # optional, like what follows
      instruction: Which team should answer this ticket? Choose one from the option.
      labels: [billing, technical, no]

A row has `text` or `sentence`, and `label`. Without `labels`, answers are free text. `metric` names
what answers are measured by (`nlora.evaluation.metrics`). A task without `train` is only tested.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from nlora.data.examples import check_labels, to_examples, to_texts
from nlora.data.messages import agreed
from nlora.data.rows import STDIN, read_array, read_csv, read_jsonl, read_lines, read_text
from nlora.data.task import Example, Task, TaskData
from nlora.errors import NloraError, unknown

_KEYS = ("name", "train", "test", "dev", "instruction", "labels", "metric")
_TEXT_KEYS = ("text", "sentence")
_READERS = {".jsonl": read_jsonl, ".csv": read_csv, ".json": read_array}
# A task's name becomes part of a folder's name.
_NAME = re.compile(r"\w[\w .+-]{0,59}")
_NULL = "tag:yaml.org,2002:null"


@dataclass(frozen=True, slots=True)
class _Entry:
    place: str
    task: Task
    train: Path | None
    test: Path
    dev: Path | None

    def load(self) -> TaskData:
        return agreed(
            TaskData(
                self.task,
                train=_read_split(self.train, self.task) if self.train else (),
                test=_read_split(self.test, self.task),
                dev=_read_split(self.dev, self.task) if self.dev else (),
                only_tested=self.train is None,
            )
        )


def read_stream(path: Path) -> list[TaskData]:
    """The tasks of a YAML list, in its order.

    Raises NloraError, with file and line, for all that is wrong with the list or with the files
    that it names.
    """
    root = _compose(path)
    if not isinstance(root, yaml.SequenceNode) or not root.value:
        raise NloraError(f"{path}: a stream is a YAML list of tasks, each with name, train, test")
    entries = [_read_entry(path, node) for node in root.value]
    places: dict[str, str] = {}
    for entry in entries:
        name = entry.task.name
        if name in places:
            raise NloraError(f"{entry.place}: task '{name}' is also in {places[name]}; rename one")
        places[name] = entry.place
    return [entry.load() for entry in entries]


def read_entry(path: Path) -> TaskData:
    """The task of a YAML file that holds one entry, as a mapping or as a list of one.

    Raises NloraError like `read_stream`.
    """
    root = _compose(path)
    if isinstance(root, yaml.SequenceNode):
        if len(root.value) != 1:
            raise NloraError(f"{path}: must hold one task, but is a list of {len(root.value)}")
        root = root.value[0]
    if root is None:
        raise NloraError(f"{path}: no task in it")
    return _read_entry(path, root).load()


def task_from_files(
    name: str,
    train: Path,
    test: Path,
    dev: Path | None = None,
    instruction: str | None = None,
    labels: Sequence[str] | None = None,
) -> TaskData:
    """The task whose examples are in these files (.jsonl, .csv or .json), as in `read_stream`.

    Without `labels`, answers are free text.

    Raises NloraError, with file and line, for a bad name, bad labels and all that is wrong with
    the files.
    """
    place = f"task {name!r}"
    return _Entry(place, _task(place, name, instruction, labels), train, test, dev).load()


def read_texts(path: Path) -> tuple[str, ...]:
    """The texts of a .txt file (one a line), or of a .jsonl, .csv or .json file, without answers.

    `-` is standard input, a text a line. Raises NloraError, with file and line, for all that is
    wrong with the file.
    """
    readers = {**_READERS, ".txt": read_lines}
    reader = read_lines if path == STDIN else readers.get(path.suffix.lower())
    if reader is None:
        raise NloraError(f"{path}: must be .txt (one text a line), .jsonl, .csv or .json")
    return to_texts(reader(path), _TEXT_KEYS)


def _task(place: str, name: str, instruction: str | None, labels: Sequence[str] | None) -> Task:
    if not _NAME.fullmatch(name):
        raise NloraError(
            f"{place}: {name!r} cannot name a task; use at most 60 letters, digits, spaces, "
            "and . + - _, beginning with a letter or digit"
        )
    return Task(
        name,
        # A YAML block ends with a line break that nobody means to be in the prompt.
        instruction=(instruction or "").strip() or None,
        labels=None if labels is None else check_labels(labels, place),
        dataset=name,
    )


def _read_split(path: Path, task: Task) -> tuple[Example, ...]:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise NloraError(f"{path}: must be .jsonl (one object per line), .csv or .json (an array)")
    return to_examples(reader(path), task, _TEXT_KEYS)


def _compose(path: Path) -> yaml.Node | None:
    """The YAML file as nodes: they know their lines, and keep `no` and `1` as written."""
    text = read_text(path)
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise NloraError(f"{path}{line}: malformed YAML: {error.problem}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise NloraError(f"{path}, line {line}: malformed YAML: {error.reason}") from None
    except RecursionError:
        raise NloraError(f"{path}: malformed YAML: nested too deeply") from None


def _read_entry(path: Path, node: yaml.Node) -> _Entry:
    place = _place(path, node)
    if not isinstance(node, yaml.MappingNode):
        raise NloraError(f"{place}: a task must have keys: name, train, test")
    text: dict[str, str | None] = {}
    labels: list[str] | None = None
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
        if key == "labels":
            labels = _read_labels(path, value)
        elif not isinstance(value, yaml.ScalarNode):
            raise NloraError(f"{_place(path, value)}: '{key}' must be text")
        else:
            text[key] = None if value.tag == _NULL else value.value
    missing = [key for key in ("name", "test") if not text.get(key)]
    if missing:
        raise NloraError(f"{place}: the task has no '{missing[0]}'")
    name, train, test, dev = (text.get(key) or "" for key in ("name", "train", "test", "dev"))
    return _Entry(
        place,
        replace(
            _task(place, name, text.get("instruction"), labels), metric=text.get("metric") or None
        ),
        _resolve(path, train) if train else None,
        _resolve(path, test),
        _resolve(path, dev) if dev else None,
    )


def _read_labels(path: Path, node: yaml.Node) -> list[str] | None:
    if isinstance(node, yaml.ScalarNode) and node.tag == _NULL:
        return None
    if not isinstance(node, yaml.SequenceNode):
        raise NloraError(f"{_place(path, node)}: 'labels' must be a list, as in [good, bad]")
    for item in node.value:
        if not isinstance(item, yaml.ScalarNode):
            raise NloraError(f"{_place(path, item)}: a label must be text")
    return [item.value for item in node.value]


def _place(path: Path, node: yaml.Node) -> str:
    return f"{path}, line {node.start_mark.line + 1}"


def _resolve(path: Path, name: str) -> Path:
    # Unlike Path.expanduser, os.path leaves "~stranger" as it is, to be reported as missing.
    return path.parent / os.path.expanduser(name)
