"""Which matrices LoRA adapts where `target_modules` is not set: the attention's query and value.

They are found by the structure of the model, so that a family needs no entry in a table. What PEFT
names for a family stays, so that its numbers stay.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from nlora.errors import NloraError


@dataclass(frozen=True)
class Targets:
    """A choice of matrices. `modules` is what PEFT takes as `target_modules`."""

    modules: str | list[str]
    reason: str


_END = r"(_?(proj|projection|lin|linear|layer)(_(?!norm)\w+)?)?"
_FUSED = re.compile(
    r"c_attn|wqkv|w_pack|att_proj|(in_proj_|to_|w_?)?qkvz?(_\w+)?|query_key_values?|"
    r"qkv_?(proj|linear)|mixed_qkv"
)
_QUERY = re.compile(rf"(w_?|to_|project_|in_)?q(uery)?(_b|_up)?{_END}|query_key")
_VALUE = re.compile(rf"(w_?|to_|project_|in_)?(kv|v|value|key_value)(_b|_up)?{_END}")
_INPUT = re.compile(r"in_proj(_\w+)?|input_proj|linear_(x|in)")

_ELSEWHERE = re.compile(
    r"experts?|routers?|vision\w*|visual\w*|image\w*|audio\w*|speech\w*|conformer|\w*_tower|"
    r"multi_modal\w*|mm_\w+|patch_embed\w*|embeddings?|mlp|feed_forward|ffn|indexer|compressor|"
    r"depth_decoder|lm_head",
    re.IGNORECASE,
)
"""Parts of a model whose matrices are never chosen, as one component of a module's name."""

_NOT_ASKED = frozenset({"phi"})
"""Families for which PEFT's choice is not the attention (phi's has the MLP, of an older naming)."""


def choose(model: Any) -> Targets:
    """The matrices to adapt in a Transformers model, and why these.

    PEFT's choice for the family if it has one that names linear layers of this model; else query
    and value projections of every attention (a fused projection as one), and in a model without
    attention the input projections of its mixers. Raises NloraError if there is none of these.
    """
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as BY_FAMILY

    family = str(model.config.model_type)
    linear = _linear(model)
    known = BY_FAMILY.get(family)
    if known is not None and family not in _NOT_ASKED:
        named = [name for name, _ in model.named_modules() if _meant(name, known)]
        if named and set(named) <= linear:
            return Targets(known, f"PEFT's choice for {family}")
    candidates = [name for name in linear if not any(map(_elsewhere, name.split(".")[:-1]))]
    found = [name for name in candidates if _FUSED.fullmatch(_leaf(name))]
    places = {_place(name) for name in found}
    rest = [name for name in candidates if _place(name) not in places]
    queries = [name for name in rest if _QUERY.fullmatch(_leaf(name))]
    values = [name for name in rest if _VALUE.fullmatch(_leaf(name))]
    reason = "the attention's query and value projections"
    if found and not (queries or values):
        reason = "the attention's fused query, key and value projection"
    found += queries + values
    if not found:
        found = [name for name in candidates if _INPUT.fullmatch(_leaf(name))]
        reason = "the input projections of its mixers, since it has no attention with linear layers"
    if not found:
        leaves = sorted({_leaf(name) for name in linear})
        raise NloraError(
            f"no query and value projections are found in this model ({family}); set "
            f"target_modules to some of its linear layers: {', '.join(leaves[:12])}"
        )
    everything = [name for name, _ in model.named_modules()]
    return Targets(shortest(found, everything), reason)


def shortest(chosen: Collection[str], names: Sequence[str]) -> str | list[str]:
    """The shortest `target_modules` that means the chosen ones of all modules, and no other.

    Ends of names, or a regular expression over the layers where ends would need a layer's number.

    >>> shortest(["a.0.self.q", "a.1.self.q"], ["a.0.self.q", "a.1.self.q", "b.cross.q", "a"])
    ['self.q']
    >>> shortest(["a.0.q", "a.1.q"], ["a.0.q", "a.1.q", "b.0.q", "b.1.q"])
    'a\\\\.\\\\d+\\\\.q'
    """
    wanted = set(chosen)
    found = set()
    for name in sorted(wanted):
        parts = name.split(".")
        ends = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        found.add(next(end for end in ends if {n for n in names if _meant(n, [end])} <= wanted))
    if any(part.isdigit() for end in found for part in end.split(".")):
        layers = sorted({re.sub(r"(?<=\\\.)\d+(?=\\\.)", r"\\d+", re.escape(n)) for n in wanted})
        pattern = "|".join(layers)
        if {name for name in names if _meant(name, pattern)} == wanted:
            return pattern
    return sorted(found)


def _meant(name: str, targets: str | Sequence[str]) -> bool:
    """Whether PEFT takes `target_modules` to mean this module."""
    if isinstance(targets, str):
        return re.fullmatch(targets, name) is not None
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _linear(model: Any) -> set[str]:
    """Names of the linear layers, without the output layer.

    Those of a quantised model may be of the classes of the library that reads them.
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head, quantized = model.get_output_embeddings(), getattr(model, "is_quantized", False)

    def linear(module: Any) -> bool:
        sized = hasattr(module, "in_features") and hasattr(module, "out_features")
        return isinstance(module, nn.Linear | Conv1D) or (quantized and sized)

    return {
        name
        for name, module in model.named_modules()
        if linear(module) and module is not head and "lm_head" not in name
    }


def _leaf(name: str) -> str:
    """The name that tells a layer's role: `q_proj` of "attn.q_proj.linear"."""
    parts = name.split(".")
    own = parts[-2] if parts[-1] in ("linear", "base", "proj") and len(parts) > 1 else parts[-1]
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", own).lower()


def _place(name: str) -> str:
    return name.rpartition(".")[0]


def _elsewhere(part: str) -> bool:
    return _ELSEWHERE.fullmatch(part) is not None
