"""What a run goes on from: an adapter of PEFT's, and the task that it knows, if that is told."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nlora.adapters.given import given
from nlora.data.balance import label_counts
from nlora.data.files import read_entry, task_from_files
from nlora.data.formats import YAML, source
from nlora.data.task import TaskData
from nlora.errors import NloraError, option
from nlora.methods.base import Method


def known_task(knows: str) -> TaskData:
    """The task that the text describes: its test examples alone, and what they are taken for.

    `NAME=FILE` is of free text, `NAME:auto=FILE` has the labels in it, `NAME:A,B=FILE` these. A
    YAML file of one entry says more. Raises NloraError as reading such a file does, and where it
    has no test examples.
    """
    if knows.lower().endswith(YAML):
        data = read_entry(Path(knows), untrained=True)
    else:
        name, labels, file = named_file(knows)
        if not (name and file) or labels == "":
            raise NloraError(
                f"{option('knows')} takes NAME=FILE, NAME:auto=FILE or NAME:A,B=FILE (with "
                f"labels), or a YAML file of one task, not '{knows}'"
            )
        where = source(file, Path())
        data = task_from_files(name, None, where, labels=labels or None)
    return replace(data, train=(), dev=(), only_tested=False, notes=(*data.notes, _taken_for(data)))


def named_file(text: str) -> tuple[str, str | None, str]:
    """Name, labels (None where none are asked for) and file of `NAME[:LABELS]=FILE`.

    >>> named_file("mood:good,bad=mood.csv"), named_file("mood=mood.csv")
    (('mood', 'good,bad', 'mood.csv'), ('mood', None, 'mood.csv'))
    """
    asked, _, file = text.partition("=")
    name, colon, labels = asked.partition(":")
    return name, labels if colon else None, file


def _taken_for(data: TaskData) -> str:
    """What the tests of a known task are read as."""
    said = f"'{data.name}', which the adapter knows: {len(data.test)} test rows"
    if data.task.labels is not None:
        return f"{said}, answered by one of {len(data.task.labels)} labels"
    answers = label_counts(data.test, None)
    hint = f"; {option('knows', f'{data.name}:auto=FILE')} makes the {len(answers)} in them labels"
    return f"{said} of free text{hint if answers and not data.task.chat else ''}"


def check_names(stream: Sequence[TaskData]) -> None:
    """Raise NloraError if a task of the stream has the name of the one that the adapter knows."""
    first, *others = stream
    if first.name in [data.name for data in others]:
        raise NloraError(
            f"the adapter is said to know '{first.name}', which is also in the stream; give it "
            "another name"
        )


def absolute_file(knows: str) -> str:
    """The same from any working directory."""
    if knows.lower().endswith(YAML):
        return os.path.abspath(os.path.expanduser(knows))
    name, equals, file = knows.partition("=")
    return f"{name}{equals}{source(file, Path.cwd())}" if file else knows


def settings_of(adapter: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The settings under which new updates are like the adapter, over those that are asked for.

    Nothing is read where all are there, as in a directory that has begun. Raises NloraError where
    other ones are asked for, and as `given` does.
    """
    if asked.keys() >= {"rank", "alpha", "target_modules"}:
        return dict(asked)
    found = given(adapter).settings()
    for name in found.keys() & asked.keys():
        if asked[name] != found[name]:
            raise NloraError(
                f"setting '{name}' is {asked[name]!r}, and that of {adapter} is {found[name]!r}; "
                "leave the setting out"
            )
    return {**asked, **found}


def check_goes_on(method: Method, adapter: str) -> None:
    """Raise NloraError if the method cannot take the adapter for the update of a stage."""
    from nlora.methods.parts.lora import LoraMethod

    if method.adapter != "lora":
        raise NloraError(
            f"{method.name} trains '{method.adapter}' and cannot go on from a LoRA adapter; "
            "take a method over LoRA adapters (`nlora methods`)"
        )
    learns = type(method).end not in (Method.end, LoraMethod.end)
    if learns or method.routes_by_input or method.needs_old_data:
        raise NloraError(
            f"{method.name} remembers something of every task's training examples, which an "
            f"adapter does not bring ({adapter}); take another method"
            + (", or routing=task" if method.routes_by_input else "")
        )
