"""The matrices of a model that LoRA adapts, put in by PEFT."""

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear, LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer

from nlora.backbones.sharding import is_sharded
from nlora.backbones.targets import Targets, choose
from nlora.errors import NloraError

_PLAIN = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_KINDS = ("bnb", "gptq", "awq", "aqlm", "hqq", "eetq", "torchao")
"""Modules of PEFT that hold its layers around quantised matrices."""


def adapted(model: Any, target_modules: str | list[str]) -> tuple[Any, dict[str, Any]]:
    """The model, frozen but otherwise as it was, and the matrices that LoRA would adapt, by name.

    These are PEFT's layers around them (`get_base_layer`, `in_features`, `fan_in_fan_out` …), of
    which none is in the model. Raises NloraError as `wrapped` and `layers` do.
    """
    inside = wrapped(model, LoraConfig(r=1, target_modules=target_modules))
    found = layers(inside)
    return inside.unload(), found


def targets(model: Any, target_modules: str | list[str] | None) -> Targets:
    """What is set, or else what the model's structure says (`backbones.targets`)."""
    if target_modules is None:
        return choose(model)
    return Targets(target_modules, "the setting target_modules")


def wrapped(model: Any, config: Any, what: str = "LoRA adapters") -> Any:
    """PEFT's model around this one. Raises NloraError where PEFT refuses `target_modules`."""
    try:
        return get_peft_model(model, config)
    except (ValueError, re.error) as error:
        reason = textwrap.shorten(str(error), 300, placeholder=" …")
        raise NloraError(
            f"cannot put {what} into this model: {reason} (setting target_modules)"
        ) from error


def save_adapter(model: Any, folder: Path, name: str, **told: Any) -> None:
    """PEFT's files of one adapter, without a model card, whose template takes longest to fill."""
    model.create_or_update_model_card = lambda output_dir: None
    model.save_pretrained(
        str(folder), selected_adapters=[name], save_embedding_layers=False, **told
    )


def layers(model: Any) -> dict[str, Any]:
    """The adapted matrices by name. Raises NloraError for kinds that have no one ΔW."""
    found = {}
    for name, module in model.base_model.model.named_modules():
        if isinstance(module, Linear) or _quantized(module):
            found[name] = module
        elif isinstance(module, BaseTunerLayer):
            raise NloraError(
                f"setting target_modules: '{name}' is a {type(module.get_base_layer()).__name__}; "
                "only linear layers can be adapted"
            )
    return found


def plain(layers: Mapping[str, Any]) -> bool:
    """Whether the adapted weights are numbers that an update can be added to.

    Those that are quantised are none, nor are those that processes share out.
    """
    weights = [
        layer.get_base_layer().weight for layer in layers.values() if isinstance(layer, Linear)
    ]
    whole = not any(map(is_sharded, layers.values()))
    return whole and len(weights) == len(layers) and all(w.dtype in _PLAIN for w in weights)


def _quantized(module: Any) -> bool:
    """Whether PEFT's layer stands around a quantised matrix (bitsandbytes, GPTQ, AWQ, …)."""
    own = type(module).__module__.rpartition(".")[2]
    return isinstance(module, LoraLayer) and own in _KINDS
