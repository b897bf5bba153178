"""`model.json` and `results.json`: what they must hold, and the seal of the first."""

from pathlib import Path
from typing import Any

from pydantic import Field

from nlora.errors import NloraError
from nlora.store.reading import Kind, Measured, Size, check, read_json
from nlora.store.records import sealed_text, unsealed

FORMAT = 2
"""From 2 on `model.json` has its hash."""
_FORMATS = (1, FORMAT)


class Base(Kind):
    """Which model was trained on; both are None where nobody knew."""

    title: str | None = None
    revision: str | None = None


class Document(Kind):
    """`model.json`. What of it is a run's configuration has a schema of its own, above."""

    model: str = ""
    base: Base = Field(default_factory=Base)
    tasks: list[str] | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)


class AmongLabels(Kind):
    """The matrix and its metrics where the answer is the most likely label."""

    zero_shot: list[Measured | None] | None = None
    accuracy_matrix: list[list[Measured | None]] = Field(default_factory=list)
    average_accuracy: Measured | None = None


class OffList(Kind):
    """Per cent of answers that are none of the labels."""

    zero_shot: list[Measured | None] | None = None
    matrix: list[list[Measured | None]] = Field(default_factory=list)
    average: Measured | None = None


class Results(Kind):
    """`results.json`, which a ledger's row repeats."""

    tasks: list[str]
    stages: list[str]
    zero_shot: list[Measured | None] | None
    accuracy_matrix: list[list[Measured | None]]
    average_accuracy: Measured | None
    learning_accuracy: Measured | None
    forgetting: Measured | None
    backward_transfer: Measured | None
    forward_transfer: Measured | None
    among_labels: AmongLabels = Field(default_factory=AmongLabels)
    off_list: OffList = Field(default_factory=OffList)
    seconds: Size
    peak_memory_bytes: Size


def sealed_document(values: dict[str, Any]) -> str:
    """The text of `model.json`, with a hash of all else in it."""
    return sealed_text({"format": FORMAT, **{**values, "format": FORMAT}})


def read_document(path: Path) -> dict[str, Any]:
    """`model.json`, without its hash. Raises NloraError for what is none or was changed.

    Those of format 1 have no hash, and are taken as they are.
    """
    values = read_json(path)
    form = values.get("format")
    if form not in _FORMATS or isinstance(form, bool):
        raise NloraError(
            f"{path} is not a model directory's: its 'format' is {form!r}, not {FORMAT}; "
            "choose another folder"
        )
    check(Document, values, path)
    return unsealed(values, path, form)


def read_results(path: Path) -> dict[str, Any]:
    """`results.json`. Raises NloraError for what is none."""
    values = read_json(path)
    check(Results, values, path)
    return values
