"""Metrics of one's own: functions of answers and labels, two lists of texts, in per cent.

`module:function` is imported. One that was handed over (`register`) or is in a plug-in file
(`register_file`) needs no module.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlora.errors import NloraError
from nlora.evaluation.answers import Metric, Prediction

if TYPE_CHECKING:
    from nlora.data.task import Example, Task

Own = Callable[[list[str], list[str]], float]
"""From answers and labels to per cent."""

_GIVE = "give the file that has it (--plugin FILE), or hand it over (nlora.load(…, own=…))"

_registered: dict[str, Own] = {}
"""Functions of one's own that this process was handed, by name."""


def register(function: Own) -> str:
    """The name, `module:function`, under which a function of one's own is a metric from now on.

    Raises NloraError for one without a name, which could not be found again.
    """
    name = getattr(function, "__qualname__", "")
    if not name or "<lambda>" in name:
        raise NloraError(f"{function!r} cannot be a metric: give it a name (def)")
    name = f"{function.__module__}:{name}"
    _registered[name] = function
    return name


def register_file(file: str, functions: Iterable[Own]) -> None:
    """Let functions of a plug-in file be metrics, as `file:function`, its name without an ending.

    They stand in for those, too, that a script has defined itself and that are not here.
    """
    for function in functions:
        _registered[f"{file}:{function.__name__}"] = function
        _registered.setdefault(f"__main__:{function.__name__}", function)


def own_metric(name: str) -> Metric:
    """The function of that name as a metric.

    Raises NloraError if there is none; the metric raises it if the function fails or gives no
    number.
    """
    in_file = name.rpartition(".")[2]  # whatever package its module was in
    found: Any = _registered.get(name) or _registered.get(in_file) or _imported(name)
    if not callable(found):
        raise NloraError(f"metric '{name}' is no function")

    def measured(predictions: Sequence[Prediction]) -> float:
        try:
            value: Any = found([p.text for p in predictions], [p.label for p in predictions])
        except Exception as error:
            raise NloraError(f"metric '{name}': {_said(error)}") from error
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise NloraError(f"metric '{name}' gave {value!r}, which is no number")
        return number

    return measured


def _imported(name: str) -> Any:
    module, _, function = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:  # a console script looks where it is installed alone
        sys.path.append(here)
    if module == "__main__" and not hasattr(sys.modules[module], function):
        raise NloraError(
            f"metric '{name}' was defined in the script that used it: {_GIVE}; named as "
            f"FILE:{function}, other commands find it in a file beside"
        )
    try:
        return getattr(importlib.import_module(module), function)
    except Exception as error:  # the module may raise whatever its author's code does
        missing = isinstance(error, ModuleNotFoundError | AttributeError)
        more = f"; {_GIVE}" if missing else ""
        raise NloraError(f"metric '{name}': {_said(error)}{more}") from error


def try_out(
    measured: Metric, task: Task, test: Sequence[Example], tell: Callable[[str], object]
) -> None:
    """Raise NloraError if a function of one's own fails on right answers: better now than later.

    One that does not give 100 for them is told.
    """
    if task.metric is None or ":" not in task.metric or not test:
        return
    right = [Prediction(e.label, e.label, e.text, labels=task.labels) for e in test[:2]]
    value = measured(right)
    if value != 100:
        tell(
            f"metric '{task.metric}' gives {value:g} for answers that are right; 100 is expected, "
            "since metrics are in per cent"
        )


def _said(error: Exception) -> str:
    """An error of somebody else's code, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
