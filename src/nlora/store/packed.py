"""Nested values with tensors in them, as files: safetensors and JSON, never pickled.

A value is read back as what it was: tuples, mappings whose keys are numbers, and the kind of device
that a tensor was on. A dataclass is read back as `Fields`, since its kind is not in the file.
"""

import json
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from nlora.errors import NloraError
from nlora.store.atomic import draft_text
from nlora.tensors import read_tensors


class Fields(dict[str, Any]):
    """The fields of a dataclass, by name."""


def write_packed(folder: Path, name: str, value: Any) -> None:
    """Write `NAME.json` and `NAME.safetensors` into a folder that is there.

    Raises NloraError for anything but tensors, JSON values, tuples, mappings and dataclasses.
    """
    tensors: dict[str, Tensor] = {}
    packed = _packed(value, tensors, set(), name)
    draft_text(folder / f"{name}.json", json.dumps(packed))
    save_file(tensors, folder / f"{name}.safetensors")


def read_packed(folder: Path, name: str, device: torch.device) -> Any:
    """What `write_packed` wrote; what was not on the CPU is put on `device`."""
    tensors = read_tensors(folder / f"{name}.safetensors")
    packed = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))

    def tensor(key: str, on: str) -> Tensor:
        return tensors[key] if on == "cpu" else tensors[key].to(device)

    return _unpacked(packed, tensor)


def put_back(owner: Any, values: dict[str, Any]) -> None:
    """Set attributes; where one is a dataclass and so was what was kept, its fields."""
    for name, value in values.items():
        known = getattr(owner, name, None)
        if isinstance(value, Fields) and is_dataclass(known):
            put_back(known, value)
        else:
            setattr(owner, name, value)


def _packed(value: Any, tensors: dict[str, Tensor], seen: set[int], where: str) -> Any:
    def inner(value: Any, place: Any) -> Any:
        return _packed(value, tensors, seen, f"{where}.{place}")

    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Tensor) and value.layout is torch.strided:
        kept, key = value.detach().contiguous(), str(len(tensors))
        storage = kept.untyped_storage().data_ptr()
        tensors[key] = kept.clone() if storage in seen else kept  # shared memory is refused
        seen.add(storage)
        return {"tensor": key, "on": value.device.type}
    if type(value) is list:
        return [inner(v, i) for i, v in enumerate(value)]
    if type(value) is tuple:
        return {"tuple": [inner(v, i) for i, v in enumerate(value)]}
    if isinstance(value, dict):
        return {"items": [[inner(k, "key"), inner(v, k)] for k, v in value.items()]}
    if is_dataclass(value) and not isinstance(value, type):
        return {"fields": {f.name: inner(getattr(value, f.name), f.name) for f in fields(value)}}
    raise NloraError(f"{where} is a {type(value).__name__}, which cannot be kept in a file")


def _unpacked(value: Any, tensor: Callable[[str, str], Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpacked(v, tensor) for v in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensor(value["tensor"], value["on"])
    if "tuple" in value:
        return tuple(_unpacked(v, tensor) for v in value["tuple"])
    if "items" in value:
        return {_unpacked(k, tensor): _unpacked(v, tensor) for k, v in value["items"]}
    return Fields({name: _unpacked(v, tensor) for name, v in value["fields"].items()})
