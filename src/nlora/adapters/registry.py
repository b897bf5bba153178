"""Adapters by name: built-in ones, installed ones, and those of a plug-in file.

A package offers them through the entry point group `nlora.adapters`, under the adapter's name; a
plug-in file by `register`. What is not asked for is not imported.
"""

import inspect
from importlib import import_module

from nlora.adapters.base import Adapter
from nlora.errors import NloraError, unknown
from nlora.installed import entry_points

GROUP = "nlora.adapters"

BUILT_IN = {
    "lora": "nlora.adapters.lora:Lora",
    "lora-and-whole": "nlora.adapters.lora_and_whole:LoraAndWhole",
    "gated": "nlora.adapters.gated:Gated",
    "full": "nlora.adapters.full:Full",
    "prompt": "nlora.adapters.prompt:Prompt",
    "sparse": "nlora.adapters.sparse:Sparse",
    "osf": "nlora.adapters.osf:Osf",
    "peft": "nlora.adapters.peft_tuner:PeftTuner",
}

_registered: dict[str, type[Adapter]] = {}


def register(kind: type[Adapter]) -> None:
    """Let an adapter be asked for by its name; the last one of a name counts.

    Raises NloraError if it lacks a name, or one of the methods that every adapter has.
    """
    if inspect.isabstract(kind):
        missing = ", ".join(sorted(kind.__abstractmethods__))
        raise NloraError(f"adapter {kind.__name__} lacks {missing}")
    if not getattr(kind, "name", ""):
        raise NloraError(f"adapter {kind.__name__} needs a name")
    _registered[kind.name] = kind


def adapter(name: str) -> type[Adapter]:
    """The adapter of that name. Raises NloraError with the nearest names."""
    if name in _registered:
        return _registered[name]
    if name in BUILT_IN:
        module, kind = BUILT_IN[name].split(":")
        return getattr(import_module(module), kind)
    installed = {point.name: point for point in entry_points(group=GROUP)}
    if name not in installed:
        raise unknown("adapter", name, {**BUILT_IN, **installed, **_registered})
    try:
        return installed[name].load()
    except Exception as error:
        raise NloraError(
            f"the installed adapter '{installed[name].value}' fails: {error}"
        ) from error


def adapters() -> dict[str, type[Adapter]]:
    """All adapters by name, imported. Raises NloraError if an installed one cannot be."""
    names = [*BUILT_IN, *(point.name for point in entry_points(group=GROUP)), *_registered]
    return {name: adapter(name) for name in names}
