"""What a PEFT adapter's `adapter_config.json` says: ranks, scalings, and what is not plain LoRA.

Some kinds of adapter have no ΔW = s·B·A, or none without the base model; they are refused. Others
change more than ΔW: they are read, with a word on what the numbers leave out.
"""

import json
import math
import os
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nlora.errors import NloraError

CONFIG = "adapter_config.json"

_REFUSED = {
    "use_bdlora": "its factors are block-diagonal (BD-LoRA)",
    "use_qalora": "its A acts on pooled inputs (QA-LoRA)",
    "kasa_config": "it has a diagonal between B and A and cuts the base weight (KaSA)",
    "arrow_config": "it routes between other adapters (Arrow)",
    "target_parameters": "it adapts stacked parameters (experts), several matrices in one pair",
}
_IGNORED = {
    "use_dora": "DoRA: the magnitude vectors are left out; the numbers are of s·B·A, which is not "
    "the whole change",
    "lora_bias": "its bias vectors are left out",
    "modules_to_save": "modules that were trained whole are left out: {value}",
    "trainable_token_indices": "trained token embeddings are left out",
    "alora_invocation_tokens": "it is active only after its invocation tokens (aLoRA)",
    "layer_replication": "layers are counted in the replicated stack: {value}",
}
_CONVERTED = (
    "C3A",
    "DELORA",
    "FOURIERFT",
    "GRALORA",
    "LOHA",
    "LOKR",
    "MISS",
    "PSOFT",
    "RANDLORA",
    "TINYLORA",
    "UNILORA",
    "VBLORA",
    "VERA",
    "WAVEFT",
)
"""Kinds that PEFT's `save_as_lora` takes (linear layers, without biases)."""
MOVED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initialisations that put a part of the base weights into B·A, and take it from the base."""


class AdapterConfig(BaseModel):
    """The part of the configuration that decides ΔW; other keys are kept as they are."""

    model_config = ConfigDict(extra="allow")

    peft_type: str
    r: int = Field(8, gt=0)
    lora_alpha: float = Field(8, allow_inf_nan=False)
    use_rslora: bool | None = False
    rank_pattern: dict[str, int] | None = None
    alpha_pattern: dict[str, float] | None = None
    target_modules: list[str] | str | None = None
    init_lora_weights: bool | str | None = True
    bias: str | None = "none"
    base_model_name_or_path: str | None = None
    revision: str | None = None
    layer_replication: list[Any] | None = None

    @property
    def base_model(self) -> str | None:
        """The base model as it is loaded: a folder, or a Hub name with the revision that is pinned.

        >>> AdapterConfig(peft_type="LORA", base_model_name_or_path="a/b", revision="v2").base_model
        'a/b@v2'
        """
        name = self.base_model_name_or_path
        on_hub = name and self.revision and not os.path.isdir(os.path.expanduser(name))
        return f"{name}@{self.revision}" if on_hub else name

    @property
    def base(self) -> str | None:
        """The base model's name without the place where it lay: two copies are one model."""
        if not self.base_model_name_or_path:
            return None
        path = printable(self.base_model_name_or_path).replace("\\", "/").rstrip("/")
        cached = re.search(r"models--[^/]*--([^/]+)/snapshots/[0-9a-f]+$", path)
        return cached[1] if cached else path.rsplit("/", 1)[-1]

    def rank(self, module: str) -> int:
        """The rank of one module: `rank_pattern`'s where a pattern matches."""
        patterns = self.rank_pattern or {}
        return patterns.get(_matching(patterns, module), self.r)

    def scaling(self, module: str) -> float:
        """α/r, or α/√r for rank-stabilised LoRA, of one module."""
        patterns = self.alpha_pattern or {}
        alpha = patterns.get(_matching(patterns, module), self.lora_alpha)
        rank = self.rank(module)
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank

    def excludes(self, target: str) -> bool:
        """Whether `exclude_modules` leaves out what `target_modules` names so."""
        excluded = (self.model_extra or {}).get("exclude_modules") or []
        if isinstance(excluded, str):
            return re.fullmatch(excluded, target) is not None
        return any(f".{target}".endswith(f".{name}") for name in excluded)

    @property
    def moves_base(self) -> bool:
        """Whether its start put a part of the base model's weights into B·A."""
        return str(self.init_lora_weights).lower().startswith(MOVED_BASE)

    def notes(self) -> list[str]:
        """What the numbers of this adapter leave out, a clause each."""
        values = self.model_dump()
        found = [
            text.format(value=_short(values[key]))
            for key, text in _IGNORED.items()
            if values.get(key)
        ]
        if self.bias not in (None, "none"):
            found.append("trained biases are left out")
        if self.moves_base:
            found.append(
                f"initialised with {self.init_lora_weights}, which moves a part of the base "
                "weights into B·A: s·B·A is not the change against the published base model "
                "(PEFT's path_initial_model_for_weight_conversion makes a plain adapter of it)"
            )
        return found


def read_config(folder: Path) -> AdapterConfig:
    """The configuration of the adapter in a folder. Raises NloraError unless it is one of LoRA."""
    path = folder / CONFIG
    try:
        config = AdapterConfig.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise NloraError(f"{folder} holds no adapter: it has no {CONFIG}") from error
    except OSError as error:
        raise NloraError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise NloraError(f"{path}: {where or 'the file'}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise NloraError(f"{path} is not valid JSON: {error}") from error
    if config.peft_type != "LORA":
        kind = printable(config.peft_type[:40])
        advice = (
            f"PEFT's `save_as_lora` converts {kind}"
            if kind in _CONVERTED
            else "and PEFT has no conversion of this kind to it"
        )
        raise NloraError(
            f"{path}: the adapter is of kind {kind!r}, only LORA has factors B·A; {advice}"
        )
    values = config.model_dump()
    for key, reason in _REFUSED.items():
        if values.get(key):
            raise NloraError(f"{path}: {key} is set: {reason}, so ΔW is not s·B·A")
    patterns = [*(config.rank_pattern or {}), *(config.alpha_pattern or {})]
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise NloraError(f"{path}: {pattern!r} is not a pattern: {error}") from error
    if any(rank <= 0 for rank in (config.rank_pattern or {}).values()):
        raise NloraError(f"{path}: rank_pattern holds a rank that is not positive")
    return config


def _matching(patterns: dict[str, Any], module: str) -> str:
    """The first pattern that matches the end of a module's name, as PEFT chooses it."""
    return next((p for p in patterns if re.match(rf"(.*\.)?({p})$", module)), module)


def printable(text: str) -> str:
    """A stranger's text without what would steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _short(value: Any) -> str:
    text = printable(", ".join(map(str, value)) if isinstance(value, list) else str(value))
    return text if len(text) <= 60 else text[:57] + "…"
