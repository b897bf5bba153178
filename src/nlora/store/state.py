"""What a method remembers from stage to stage, as files: safetensors and JSON, never pickled.

A state is a dataclass. `state.json` holds every field; where a tensor stands, or an element of a
list or mapping is one, it has null, and `state.safetensors` has the tensor as `name`, `name.key` or
`name.number`. A field may be a dataclass itself: a mapping of its fields, whose tensors have its
name before theirs.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from nlora.errors import NloraError
from nlora.store.atomic import draft_text
from nlora.store.reading import read_json
from nlora.store.records import VALUES
from nlora.tensors import read_tensors

S = TypeVar("S")

TENSORS = "state.safetensors"


def write_state(folder: Path, state: Any) -> None:
    """Write a state into a folder that is there; nothing where every field has its default.

    Raises NloraError for a field that would not be read back as it is.
    """
    tensors, values = _parts(state)
    if not tensors and values == _parts(type(state)())[1]:
        return
    for name, value in values.items():
        if not _survives(value):
            raise NloraError(
                f"field '{name}' of {type(state).__name__} is no tensor, list of tensors, tensors "
                "by name or JSON value, so it cannot be kept"
            )
    if tensors:
        save_file({n: t.detach().contiguous() for n, t in tensors.items()}, folder / TENSORS)
    draft_text(folder / VALUES, json.dumps(values, ensure_ascii=False))


def read_state(folder: Path, kind: type[S]) -> S:
    """The state that `write_state` wrote, or an earlier version of nlora; tensors on the CPU.

    Raises NloraError if it is that of another method.
    """
    if (folder / VALUES).is_file():
        found = _filled(read_json(folder / VALUES), _tensors(folder / TENSORS))
    else:
        found = _earlier(folder)
    return _built(kind, found, folder)


def _built(kind: type[S], found: Mapping[str, Any], folder: Path) -> S:
    """A dataclass with these fields, those that are dataclasses built first."""
    parts = {field.name: field.default_factory for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := found.keys() - parts.keys():
        raise NloraError(
            f"{folder} holds what this method does not keep: {', '.join(sorted(unknown))}"
        )
    inner = {n: kind for n, kind in parts.items() if n in found and is_dataclass(kind)}
    return kind(**found | {n: _built(part, found[n], folder) for n, part in inner.items()})  # type: ignore[arg-type]


def _parts(state: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a state by name, and its fields with null in their place."""
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}

    def without(name: str, value: Any) -> Any:
        if isinstance(value, Tensor):
            tensors[name] = value
            return None
        return value

    for field in fields(state):
        name, value = field.name, getattr(state, field.name)
        if field.metadata.get("unless_default") and value == type(value)():
            continue
        if is_dataclass(value):
            inner, values[name] = _parts(value)
            tensors |= {f"{name}.{key}": tensor for key, tensor in inner.items()}
        elif isinstance(value, dict):
            values[name] = {key: without(f"{name}.{key}", v) for key, v in value.items()}
        elif isinstance(value, list):
            values[name] = [without(f"{name}.{i}", v) for i, v in enumerate(value)]
        else:
            values[name] = without(name, value)
    return tensors, values


def _filled(
    values: Mapping[str, Any], tensors: Mapping[str, Tensor], within: str = ""
) -> dict[str, Any]:
    """The fields with their tensors."""

    def at(name: str, value: Any) -> Any:
        if isinstance(value, dict):
            return _filled(value, tensors, f"{name}.")
        if isinstance(value, list):
            return [tensors.get(f"{name}.{i}", v) for i, v in enumerate(value)]
        return tensors.get(name, value)

    return {name: at(f"{within}{name}", value) for name, value in values.items()}


def _survives(value: Any) -> bool:
    """Whether a value is read from JSON as it was written."""
    try:
        return json.loads(json.dumps(value)) == value
    except (TypeError, ValueError):
        return False


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return read_tensors(path) if path.is_file() else {}
    except SafetensorError as error:
        raise NloraError(f"{path} is damaged: {error}") from error


def _earlier(folder: Path) -> dict[str, Any]:
    """The fields of states as nlora 0.1 wrote them, each kind in a file of its own."""
    found: dict[str, Any] = {}
    if tensors := _tensors(folder / "ewc.safetensors"):
        found["constant"] = float(tensors.pop("constant"))
        found |= {name: dict(_below(tensors, name)) for name in ("fisher", "anchor")}
    if tensors := _tensors(folder / "router.safetensors"):
        stages = list(range(1, 1 + len(tensors["means"])))
        router = {"means": list(tensors["means"]), "stages": stages, "scatter": tensors["scatter"]}
        found["by_text"] = router | {"texts": int(tensors["texts"])}
    if (path := folder / "buffer.json").is_file():
        found["kept"] = json.loads(path.read_text(encoding="utf-8"))
    if (path := folder / "lfpt5.json").is_file():
        found |= json.loads(path.read_text(encoding="utf-8"))
    return found


def _below(tensors: Mapping[str, Tensor], field: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a mapping, by its keys."""
    prefix = f"{field}."
    return ((n.removeprefix(prefix), t) for n, t in tensors.items() if n.startswith(prefix))
