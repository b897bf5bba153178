"""Consolidations by name: built-in ones, installed ones, and those of a plug-in file.

A package offers them through the entry point group `nlora.merging`; a plug-in file by `register`.
"""

import inspect

from nlora.errors import NloraError, unknown
from nlora.installed import entry_points
from nlora.merging.base import Consolidation
from nlora.merging.builtin import Alone, Largest, Retract, Sum
from nlora.merging.peft_rules import Dare, Magnitude, Ties

GROUP = "nlora.merging"

_known: dict[str, type[Consolidation]] = {
    kind.name: kind for kind in (Sum, Largest, Alone, Retract, Ties, Dare, Magnitude)
}


def register(kind: type[Consolidation]) -> None:
    """Let a consolidation be asked for by its name; the last one of a name counts.

    Raises NloraError if it lacks a name or `merge`.
    """
    if inspect.isabstract(kind) or not getattr(kind, "name", ""):
        raise NloraError(f"consolidation {kind.__name__} needs a name and `merge`")
    _known[kind.name] = kind


def consolidations() -> dict[str, type[Consolidation]]:
    """All consolidations by name. Raises NloraError if an installed one cannot be loaded."""
    found = dict(_known)
    for point in entry_points(group=GROUP):
        try:
            found.setdefault(point.name, point.load())
        except Exception as error:
            raise NloraError(
                f"the installed consolidation '{point.value}' fails: {error}"
            ) from error
    return found


def consolidation(name: str) -> Consolidation:
    """The consolidation of that name. Raises NloraError with the nearest names."""
    if name in _known:
        return _known[name]()
    known = consolidations()
    if name not in known:
        raise unknown("consolidation", name, known)
    return known[name]()


def checked(name: str) -> str:
    """The name, if there is such a consolidation; for settings. Raises NloraError if not."""
    consolidation(name)
    return name
