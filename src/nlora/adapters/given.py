"""An adapter that somebody trained with PEFT, to go on from as if it had been trained here.

What LoRA computes here is W₀x + s·B·A·x, with one rank and one scaling for all matrices. An adapter
that computes that is taken exactly: rank-stabilised scaling is another number s; a matrix of lower
rank gets rows and columns of zeros, which no gradient ever moves; another scaling goes into B. What
computes something else is refused.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nlora.adapters.peft_config import printable
from nlora.adapters.peft_files import PeftAdapter, adapter_folder, read_adapter
from nlora.errors import NloraError, option

if TYPE_CHECKING:
    from nlora.lowrank.factors import Factors

_NOT_PLAIN = {
    "use_dora": "DoRA scales every row of W + s·B·A, which is more than adding s·B·A",
    "lora_bias": "it trained biases beside B (lora_bias)",
    "modules_to_save": "it trained whole modules beside B·A (modules_to_save: {value})",
    "trainable_token_indices": "it trained embeddings of tokens beside B·A "
    "(trainable_token_indices)",
    "alora_invocation_tokens": "it is active only after its invocation tokens (aLoRA)",
    "layer_replication": "it is of a model with replicated layers (layer_replication)",
}
_NARROWED = ("exclude_modules", "layers_to_transform", "layers_pattern")


@dataclass(frozen=True)
class Given:
    """A plain LoRA adapter, and the settings under which new updates are like it."""

    adapter: PeftAdapter
    rank: int
    alpha: float
    target_modules: str | list[str]

    @property
    def base(self) -> str | None:
        """The model that its configuration names, as it was named there."""
        return self.adapter.config.base_model

    def settings(self) -> dict[str, Any]:
        """Of a run that goes on from it."""
        return {"rank": self.rank, "alpha": self.alpha, "target_modules": self.target_modules}

    def factors(self, own: Mapping[str, "Factors"]) -> "dict[str, Factors]":
        """Its update by matrix, of the rank and scaling of `own`, the factors of a fresh update.

        Raises NloraError if that adapts other matrices, or has another rank.
        """
        from torch.nn.functional import pad

        check_matrices(self.adapter, own)
        found = {}
        for name, fresh in own.items():
            A, B, scaling = self.adapter.factors(name)
            missing = len(fresh.A) - len(A)
            if missing < 0:
                raise NloraError(
                    f"{self.adapter.path} has rank {len(A)}, and the setting rank is "
                    f"{len(fresh.A)}; leave it out"
                )
            A, B = A.to(fresh.A), B.to(fresh.B) * (scaling / fresh.scaling)
            found[name] = fresh._replace(A=pad(A, (0, 0, 0, missing)), B=pad(B, (0, missing)))
        return found


def check_matrices(adapter: PeftAdapter, own: "Mapping[str, Factors]") -> None:
    """Raise NloraError unless an adapter is of the matrices that a fresh update, `own`, adapts."""
    here, there = adapter.shapes, {n: (len(f.B), f.A.shape[1]) for n, f in own.items()}
    for name in [*here, *there]:
        if here.get(name) != there.get(name):
            raise NloraError(
                f"{adapter.path}: {printable(name)} is {_shape(here, name)} in the adapter and "
                f"{_shape(there, name)} among the matrices that LoRA adapts in this model: its "
                "base model is another one, or target_modules is set otherwise"
            )


def given(source: str) -> Given:
    """The adapter in this folder or of this Hub name.

    Raises NloraError, with the reason, for one that is no plain LoRA.
    """
    adapter = read_adapter(adapter_folder(source))
    config, path = adapter.config, adapter.path
    values = config.model_dump()
    for key, reason in _NOT_PLAIN.items():
        if values.get(key):
            value = printable(str(values[key]))[:60]
            raise NloraError(f"{path}: {reason.format(value=value)}; {_merge()}")
    if config.bias not in (None, "none"):
        raise NloraError(f"{path}: it trained biases beside B·A (bias: {config.bias}); {_merge()}")
    if config.moves_base:
        raise NloraError(
            f"{path}: it was initialised with {printable(str(config.init_lora_weights))}, which "
            "takes a part out of the base model's weights; convert it with PEFT's "
            "path_initial_model_for_weight_conversion"
        )
    if embedding := adapter.embedding:
        raise NloraError(f"{path}: it adapts the embedding {embedding}; {_merge()}")
    if adapter.left_out:
        name = printable(adapter.left_out[0])
        raise NloraError(f"{path}: it holds {name!r}, which is no factor of LoRA; {_merge()}")
    ranks = {name: config.rank(name) for name in adapter.shapes}
    largest = max(ranks, key=lambda name: ranks[name])
    rank, scaling = ranks[largest], config.scaling(largest)
    if scaling <= 0:
        raise NloraError(f"{path}: its scaling is {scaling:g}, so it changes nothing that is added")
    alpha = config.lora_alpha if scaling == config.lora_alpha / rank else scaling * rank
    return Given(adapter, rank, alpha, _targets(adapter))


def _merge() -> str:
    return (
        "merge it into its base model (PEFT's merge_and_unload, then save_pretrained) and give "
        f"that as {option('model')}"
    )


def given_name(source: str) -> str:
    """What an adapter is called as a stage: the last part of its folder or Hub name.

    >>> given_name("somebody/Reviews LoRA!")
    'Reviews LoRA-'
    """
    name = source.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return re.sub(r"[^\w .+-]", "-", name)[:60].lstrip(" .+-") or "adapter"


def _targets(adapter: PeftAdapter) -> str | list[str]:
    """Its target modules, or the name of every matrix where the configuration narrows them."""
    config = adapter.config
    extra = config.model_extra or {}
    if not config.target_modules or any(extra.get(key) for key in _NARROWED):
        return list(adapter.shapes)
    return config.target_modules


def _shape(shapes: Mapping[str, tuple[int, int]], name: str) -> str:
    return "×".join(map(str, shapes[name])) if name in shapes else "missing"
