"""Data sources of one's own: functions of a plug-in file, named `FILE:function`.

Such a function needs no arguments, and returns rows as `nlora.data.memory` reads them. FILE is the
plug-in's name without its ending.
"""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from nlora.data.memory import InMemory
from nlora.errors import unknown

_registered: dict[str, dict[str, Callable[[], Any]]] = {}
"""Functions that this process was handed, by file and name."""


def register_file(file: str, functions: Iterable[Callable[..., Any]]) -> None:
    """Let functions of a plug-in file be data sources: those that need no arguments."""
    _registered[file] = {f.__name__: f for f in functions if not _needed(f)}


def is_function(name: str) -> bool:
    """Whether a name is one in a plug-in file that was registered."""
    file, colon, _ = name.partition(":")
    return bool(colon) and file in _registered


def function(name: str) -> InMemory:
    """The rows of a name that `is_function`. Raises NloraError with the nearest names."""
    file, _, wanted = name.partition(":")
    known = _registered[file]
    if wanted not in known:
        none = None if known else f"no function of {file}.py can be called without arguments"
        raise unknown("data source", name, [f"{file}:{one}" for one in known], none)
    return InMemory(known[wanted], name)


def _needed(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters that must be given."""
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return [p for p in parameters if p.default is p.empty and p.kind not in optional]
