"""What a run goes on from: an adapter of PEFT's, and the task that it knows, if that is told."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nlora.adapters.given import given
from nlora.data.files import read_entry, task_from_files
from nlora.data.task import TaskData
from nlora.errors import NloraError
from nlora.methods.base import Method

YAML = (".yaml", ".yml")


def known_task(knows: str) -> TaskData:
    """The task that `NAME=FILE` or a YAML file of one entry describes: its test examples alone.

    Raises NloraError as reading such a file does, and where it has no test examples.
    """
    if knows.lower().endswith(YAML):
        data = read_entry(Path(knows))
    else:
        name, equals, file = knows.partition("=")
        if not (name and equals and file):
            raise NloraError(f"--knows takes NAME=FILE or a YAML file of one task, not '{knows}'")
        data = task_from_files(name, Path(file), Path(file))
    return replace(data, train=(), dev=(), only_tested=False)


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
    name, equals, file = knows.rpartition("=")
    return f"{name}{equals}{os.path.abspath(os.path.expanduser(file))}"


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
