"""What changes in a penalty or a method while a stage is trained.

A penalty declares its running state: `running` names the attributes that a checkpoint must keep. A
subclass's names join those of its parents. What changes without being declared is noticed here, so
that a stage is never resumed with half of its state.
"""

import random
from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import fields, is_dataclass
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from nlora.adapters.base import Adapter
from nlora.methods.base import Method
from nlora.methods.context import Context

_LIBRARIES = {"torch", "transformers", "peft", "tokenizers", "accelerate"}
_REFERENCES = (
    *(type, ModuleType, FunctionType, MethodType, BuiltinFunctionType, partial),
    *(Adapter, Context, Method, Parameter),
)


def declared(owner: Any) -> list[str]:
    """The attributes that an object's class and its parents name in `running`."""
    named = [name for kind in type(owner).__mro__ for name in vars(kind).get("running", ())]
    return list(dict.fromkeys(named))


def traces(owner: Any, but: Collection[str] = ()) -> dict[str, Any]:
    """A trace of each attribute but some: equal as long as the attribute holds the same values.

    What only refers to the model (parameters, adapters, contexts, methods) counts as what it is.
    """
    return {n: _trace(v, set()) for n, v in _attributes(owner).items() if n not in but}


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The names whose traces differ."""
    missing = object()
    return [n for n in {**before, **after} if before.get(n, missing) != after.get(n, missing)]


def bits(tensor: Tensor) -> tuple[Any, ...]:
    """Shape, dtype and the sum of a tensor's values read as whole numbers."""
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    flat = tensor.detach().contiguous().reshape(-1)
    kind = whole.get(flat.element_size(), torch.uint8)
    total = int(flat.view(kind).sum(dtype=torch.int64)) if flat.numel() else 0
    return tuple(tensor.shape), str(tensor.dtype), total


def _attributes(owner: Any) -> dict[str, Any]:
    if is_dataclass(owner):
        return {field.name: getattr(owner, field.name) for field in fields(owner)}
    slots = [s for kind in type(owner).__mro__ for s in _slots(kind)]
    found = {name: getattr(owner, name) for name in slots if hasattr(owner, name)}
    return {**found, **getattr(owner, "__dict__", {})}


def _slots(kind: type) -> Collection[str]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else [s for s in slots if s != "__dict__"]


def _trace(value: Any, seen: set[int]) -> Any:
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return repr(value)
    if isinstance(value, Tensor) and not isinstance(value, Parameter):
        return bits(value)
    if isinstance(value, np.ndarray):
        return value.shape, str(value.dtype), hash(value.tobytes())
    if (state := _random(value)) is not None:
        return state
    if isinstance(value, Iterator):
        return object()  # where it stands cannot be told: it differs from every other
    if _refers(value) or id(value) in seen:
        return id(value)
    seen = {*seen, id(value)}
    if isinstance(value, Mapping):
        return [(_trace(k, seen), _trace(v, seen)) for k, v in value.items()]
    if isinstance(value, Set):
        return sorted(repr(_trace(v, seen)) for v in value)
    if isinstance(value, Collection):
        return [_trace(v, seen) for v in value]
    return {n: _trace(v, seen) for n, v in _attributes(value).items()} or id(value)


def _random(value: Any) -> Any:
    """The state of a source of random numbers, or None for anything else."""
    if isinstance(value, random.Random):
        return hash(value.getstate())
    if isinstance(value, torch.Generator):
        return hash(value.get_state().numpy().tobytes())
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return repr(value.get_state())
    return None


def _refers(value: Any) -> bool:
    """Whether a value is no state of its own: code, or a part of the model or of a library."""
    if isinstance(value, _REFERENCES):
        return True
    return type(value).__module__.partition(".")[0] in _LIBRARIES
