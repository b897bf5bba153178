"""From the rows of a file to examples of a task: what every source checks in the same way."""

import textwrap
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from nlora.data.comparing import with_punctuation
from nlora.data.messages import read_asked, read_chat
from nlora.data.rows import Report, Rows, stop
from nlora.data.task import Example, Task
from nlora.errors import NloraError, unknown


def check_labels(labels: Sequence[object], where: str) -> tuple[str, ...]:
    """The labels as text.

    Raises NloraError, beginning with `where`, when there are none, one is empty, or two are the
    same but for case and spaces. (Labels that differ in punctuation alone stay apart: see
    `comparing`.)

    >>> check_labels(["C", "C++"], "task 'code'")
    ('C', 'C++')
    >>> check_labels(["C++", "c++"], "task 'code'")
    Traceback (most recent call last):
    nlora.errors.NloraError: task 'code': labels 'C++' and 'c++' are the same without case and \
spaces, which do not count in evaluation; write them out
    """
    if not labels:
        raise NloraError(f"{where}: no labels")
    seen: dict[str, str] = {}
    for value in labels:
        try:
            label = _as_text(value, "label")
        except NloraError as error:
            raise NloraError(f"{where}: {error}") from None
        folded = with_punctuation(label)
        if label in seen.values():
            raise NloraError(f"{where}: label '{_brief(label)}' stands there twice")
        if folded in seen:
            raise NloraError(
                f"{where}: labels '{_brief(seen[folded])}' and '{_brief(label)}' are the same "
                "without case and spaces, which do not count in evaluation; write them out"
            )
        seen[folded] = label
    return tuple(seen.values())


def to_examples(
    rows: Rows,
    task: Task,
    text_keys: Sequence[str],
    report: Report = stop,
    ignored: Collection[str] = (),
    left_out: Counter[str] | None = None,
) -> tuple[Example, ...]:
    """The rows as examples of the task, without those that have an `ignored` label.

    A row has its text under one of `text_keys`, and its answer under "label", or is a chat
    (`nlora.data.messages`). Every row that has not, or whose label is not the task's, is reported
    with its place and left out; so is a file that gives no example at all. `left_out`, if given,
    counts the ignored examples by label.
    """
    examples = []
    for i, row in enumerate(rows.values):
        try:
            example = _example(row, task, text_keys, ignored)
        except NloraError as error:
            report(f"{rows.place(i)}: {error}")
        else:
            if example is not None:
                if example.task.chat:
                    example = replace(example, place=rows.place(i))
                examples.append(example)
            elif left_out is not None and isinstance(row, dict):
                left_out[row["label"]] += 1
    if not examples:
        report(f"{rows.path}: no examples")
    return tuple(examples)


def to_texts(rows: Rows, text_keys: Sequence[str]) -> tuple[str, ...]:
    """The texts of rows that need no answer: each is a text, or has it under one of `text_keys`.

    Raises NloraError, with its place, for a row that has none, and if there are no rows.
    """
    texts = []
    for i, row in enumerate(rows.values):
        try:
            row = read_asked(row)
            if isinstance(row, dict):
                key = _text_key(row, text_keys)
                texts.append(_as_text(row[key], key))
            else:
                texts.append(_as_text(row, "text"))
        except NloraError as error:
            raise NloraError(f"{rows.place(i)}: {error}") from None
    if not texts:
        raise NloraError(f"{rows.path}: no texts")
    return tuple(texts)


def _example(
    row: object, task: Task, text_keys: Sequence[str], ignored: Collection[str]
) -> Example | None:
    """The example; None if its label is an ignored one."""
    row, task = read_chat(row, task)
    if not isinstance(row, dict):
        names = " or ".join(f"'{key}'" for key in text_keys)
        raise NloraError(f"an example must be an object with {names}, and 'label'")
    key = _text_key(row, text_keys)
    if "label" not in row:
        raise NloraError(f"no 'label'; it has: {_keys_of(row)}")
    label = _as_text(row["label"], "label")
    if label in ignored:
        return None
    if task.labels is not None and label not in task.labels:
        label = label.strip()
    if task.labels is not None and label not in task.labels:
        raise unknown("label", _brief(label), task.labels)
    return Example(task, _as_text(row[key], key), label)


def _text_key(row: dict, text_keys: Sequence[str]) -> str:
    """The one of these keys that the row has."""
    keys = [key for key in text_keys if key in row]
    if len(keys) > 1:
        raise NloraError(f"has both {' and '.join(repr(key) for key in keys)}; keep one of them")
    if not keys:
        names = " or ".join(f"'{key}'" for key in text_keys)
        raise NloraError(f"no {names}; it has: {_keys_of(row)}")
    return keys[0]


def _keys_of(row: dict) -> str:
    return textwrap.shorten(", ".join(row), 80, placeholder=" ...") or "nothing"


def _as_text(value: object, key: str) -> str:
    """The value as the text that the user wrote (numbers are text already)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or (isinstance(value, str) and not value.strip()):
        raise NloraError(f"'{key}' is empty")
    if not isinstance(value, str):
        raise NloraError(f"'{key}' must be text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        half = value[error.start].encode("unicode_escape").decode()
        raise NloraError(f"'{key}' holds half a character ({half})") from None
    return value


def _brief(label: str) -> str:
    """A label fit for one line, unchanged if it is."""
    if len(label) <= 60 and label.isprintable():
        return label
    return textwrap.shorten(label, 60, placeholder=" ...")
