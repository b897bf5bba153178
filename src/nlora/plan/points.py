"""Methods with settings of their own, as one text: the names that a comparison gives them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nlora.errors import NloraError, unknown


def split_names(text: str) -> list[str]:
    """The names of a list: a part that is a setting belongs to the name before it.

    >>> split_names("n-lora:l1=[0.1,0.2],rank=4, inc-lora:routing=input,mtl")
    ['n-lora:l1=[0.1,0.2],rank=4', 'inc-lora:routing=input', 'mtl']
    """
    names: list[str] = []
    for part in split_settings(text):
        if names and ":" in names[-1] and "=" in part.partition(":")[0]:
            names[-1] += f",{part}"
        else:
            names.append(part)
    return names


def split_settings(text: str) -> list[str]:
    """Split at commas outside brackets.

    >>> split_settings("l1=[0.1,0.2], rank=4")
    ['l1=[0.1,0.2]', 'rank=4']
    """
    return [part.strip() for part in re.split(r",(?![^\[(]*[\])])", text)]


@dataclass(frozen=True)
class Point:
    """A method with settings of its own; `label` is its name in the ledger and in tables."""

    label: str
    method: str
    settings: dict[str, Any] = field(default_factory=dict)


def parse_points(texts: Sequence[str], plugin: str | None = None) -> tuple[Point, ...]:
    """Methods separated by commas, each with settings after a colon if it has any; `all` is all.

    >>> [p.label for p in parse_points(["n-lora,inc-lora:routing=input,rank=4,mtl"])]
    ['n-lora', 'inc-lora:routing=input,rank=4', 'mtl']

    Raises NloraError for an unknown method, with the nearest, and for what is no setting.
    """
    from nlora.methods.registry import methods  # slow, and a table needs names alone

    known = methods(Path(plugin) if plugin else None)
    labels = [label for text in texts for label in split_names(text)]
    labels = [name for label in labels for name in (known if label == "all" else [label])]
    for label in labels:
        name, colon, given = label.partition(":")
        if name not in known:
            raise unknown("method", name, known)
        if colon and "=" not in given:
            raise NloraError(f"method '{label}': after the colon come settings, KEY=VALUE")
    return tuple(_point(label) for label in labels)


def _point(label: str) -> Point:
    from nlora.plan.config import parse_overrides

    method, _, given = label.partition(":")
    return Point(label, method, parse_overrides(split_settings(given)) if given else {})
