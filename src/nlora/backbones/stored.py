"""Whether a model in memory has the weights that are stored where it is said to come from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import safe_open

from nlora.backbones.catalog import CONFIG, Base

ROWS = 4
"""So many rows of each tensor are compared, which takes no time and finds what training changes."""


def changed(model: Any, base: Base) -> str | None:
    """The name of a tensor whose stored values are others than the model's; None if there is none.

    Vectors and matrices are compared, by name, in the model's dtype; what a quantised model packs,
    weights that are stored under other names, and pickled files are not.
    """
    own = dict(_plain(model))
    prefix = f"{model.base_model_prefix}."
    for file in _files(base):
        with safe_open(file, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118  # it is no dict
                here = own.get(name, own.get(prefix + name))
                stored = weights.get_slice(name)
                if here is None or len(stored.get_shape()) not in (1, 2):
                    continue
                same = list(here.shape) == stored.get_shape()
                if not same or not (here[:ROWS].cpu() == stored[:ROWS].to(here.dtype)).all():
                    return name
    return None


def _plain(model: Any) -> Iterator[tuple[str, Any]]:
    """The parameters in plain numbers, by the names that they have without an adapter."""
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and parameter.element_size() > 1:
            yield name.replace(".base_layer.", "."), parameter.detach()


def _files(base: Base) -> list[Path]:
    """The base model's safetensors, in its folder or the Hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    folder = Path(base.target)
    if not folder.is_dir():
        found = try_to_load_from_cache(base.target, CONFIG, revision=base.revision)
        if not isinstance(found, str):
            return []
        folder = Path(found).parent
    whole = folder / "model.safetensors"
    return [whole] if whole.is_file() else sorted(folder.glob("model-*-of-*.safetensors"))
