"""The update by any of PEFT's tuners that has a change of weights: LoHa, LoKr, OFT, DoRA, …

The tuner is named as PEFT names it, and so are its options. A fresh one is put on the weights as
they stand, base model and earlier updates, and is merged into them, which are fp32, when the next
one begins. Nothing is ever unmerged: each state of the weights is made from the base model's by the
same merges in the same order, so that a loaded model is bit for bit the one that was trained.
"""

import copy
import dataclasses
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from peft import PeftModel, PeftType, TaskType, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor

from nlora.adapters.base import Abilities, Adapter, Beginning, in_main_memory, snapshot, swapped
from nlora.adapters.layers import save_adapter
from nlora.adapters.settings import AdapterSettings
from nlora.backbones.targets import Targets, choose
from nlora.errors import NloraError, unknown
from nlora.merging.base import Consolidation
from nlora.merging.registry import consolidation as by_name

ADAPTER = "default"


class PeftTuner(Adapter):
    """A fresh tuner per stage on top of the earlier ones, or one that is continued."""

    name = "peft"
    summary = "any PEFT tuner that can be merged, by its name and options"
    can = Abilities(fold=True, peft=True, merge=True)
    needs_fp32 = True

    def __init__(
        self,
        model: Any,
        peft_type: str,
        options: dict[str, Any] | None = None,
        target_modules: str | list[str] | None = None,
    ) -> None:
        kind = TaskType.SEQ_2_SEQ_LM if model.config.is_encoder_decoder else TaskType.CAUSAL_LM
        options = dict(options or {})
        if target_modules is None and "target_modules" not in options:
            self.targets = _default_targets(model, peft_type)
            target_modules = self.targets.modules if self.targets else None
        own = {"target_modules": target_modules} if target_modules is not None else {}
        self._make = _maker(peft_type, {"task_type": kind, **own, **options})
        self._kind = peft_type
        self.model = model.requires_grad_(False)
        self._in_hand = False
        """Whether `model` holds a tuner that is not merged into the weights."""
        self._start: list[Tensor] = []
        self._base = self._tried()
        """What merging changes, by parameter, as the base model has it; in main memory."""

    @classmethod
    def build(
        cls, model: Any, settings: AdapterSettings, consolidation: str | Consolidation = "sum"
    ) -> Self:
        """The tuner of the settings `peft_type`, `peft_options` and `target_modules`.

        Raises NloraError where it cannot be merged, and for a consolidation other than the sum.
        """
        strategy = by_name(consolidation) if isinstance(consolidation, str) else consolidation
        if not strategy.additive:
            raise NloraError(
                f"adapter 'peft' adds updates up, so consolidation '{strategy.name}' is not for it"
            )
        if settings.peft_type is None:
            raise NloraError("setting 'peft_type': adapter 'peft' needs one, such as LOHA")
        return cls(model, settings.peft_type, settings.peft_options, settings.target_modules)

    def prepare(self, asked: Beginning) -> None:
        """A fresh tuner on the weights with all earlier updates, or the last one continued."""
        self.replaces = asked.continued and self._in_hand
        if not self.replaces:
            self._wrap(self.merged())
        self._start = snapshot(self.update().values()) if asked.keep_previous else []

    def matrices(self) -> dict[str, Any]:
        """PEFT's layers, while there is a tuner in the model."""
        if not self._in_hand:
            return {}
        named = self.model.get_base_model().named_modules()
        return {name: module for name, module in named if isinstance(module, BaseTunerLayer)}

    def update(self) -> dict[str, Tensor]:
        """The tuner's parameters, by their names in `model`."""
        prefix = self.model.base_model.prefix if self._in_hand else "\0"
        return {name: p for name, p in self.model.named_parameters() if prefix in name}

    def consolidate(self) -> None:
        """Nothing: updates add up, and the newest is merged when the next one begins."""

    @contextmanager
    def previous(self) -> Iterator[None]:
        if self.replaces:
            with swapped(self.update().values(), self._start):
                yield
        else:
            with self.model.disable_adapter():
                yield

    def save(self, folder: Path) -> None:
        """The newest tuner, as PEFT saves it; earlier ones are part of its base."""
        config = self.model.peft_config[ADAPTER]
        if isinstance(config.target_modules, set):  # or every process would write another order
            config.target_modules = sorted(config.target_modules)
        save_adapter(self.model, folder, ADAPTER)

    def load(self, folders: Sequence[Path]) -> None:
        """Merge saved tuners into the base's weights; the last stays one that can be continued."""
        self._read(folders)
        self.replaces = False
        self._start = []

    @contextmanager
    def after(self, folders: Sequence[Path]) -> Iterator[None]:
        """The model that these saved tuners make, the base model if none.

        Afterwards `model` is another object that holds the same.
        """
        update = {name: p.clone() for name, p in self.update().items()}
        in_hand, plain = self._in_hand, self._plain()
        weights = {name: plain.get_parameter(name).detach().clone() for name in self._base}
        try:
            self._read(folders)
            yield
        finally:
            self._put(weights)
            if in_hand:
                with torch.random.fork_rng():
                    self._wrap(self.model)
                self.model.load_state_dict(update, strict=False)

    def merged(self) -> Any:
        """The plain model with every update in its weights."""
        if self._in_hand:
            self.model = self.model.merge_and_unload()
            self._in_hand = False
        return self.model

    def _wrap(self, plain: Any) -> None:
        try:
            self.model = get_peft_model(plain, self._make())
        except (ValueError, TypeError, NotImplementedError, re.error) as error:
            raise NloraError(
                f"cannot put {self._kind} into this model: {_short(error)} "
                "(settings peft_options, target_modules)"
            ) from error
        self._in_hand = True

    def _plain(self) -> Any:
        """The model without a tuner; one in hand is dropped."""
        if self._in_hand:
            self.model = self.model.unload()
            self._in_hand = False
        return self.model

    @torch.no_grad()
    def _put(self, weights: Mapping[str, Tensor]) -> None:
        plain = self._plain()
        for name, values in weights.items():
            plain.get_parameter(name).copy_(values)

    def _read(self, folders: Sequence[Path]) -> None:
        self._put(self._base)
        for folder in folders:
            plain = self.merged()
            self.model = PeftModel.from_pretrained(plain, str(folder), is_trainable=True)
            self._in_hand = True

    def _tried(self) -> dict[str, Tensor]:
        """Put a tuner in, merge it, and leave the model as it was: copies of what that changes.

        Raises NloraError if the tuner cannot be had in this way.
        """
        plain = self.model
        for name, p in plain.named_parameters():
            if p.dtype != torch.float32:
                kind = str(p.dtype).removeprefix("torch.")
                raise NloraError(f"adapter 'peft' needs fp32 weights, and '{name}' is {kind}")
        names = Counter(id(p) for _, p in plain.named_parameters(remove_duplicate=False))
        before = in_main_memory(dict(plain.named_parameters()))
        self._wrap(plain)
        prefix = self.model.base_model.prefix
        for name, p in self.model.named_parameters():
            if p.requires_grad and prefix not in name:
                raise NloraError(
                    f"setting 'peft_options': {self._kind} would train '{name}', which is no part "
                    "of an adapted matrix"
                )
        layers = {  # of stacked experts, around each of whose parameters stands a layer of PEFT's
            name.replace(".base_layer", ""): layer.get_base_layer()
            for name, layer in self.matrices().items()
        }
        changed = {
            f"{name}.{own}": p for name, m in layers.items() for own, p in m.named_parameters()
        }
        for name, p in changed.items():
            if names[id(p)] > 1:
                raise NloraError(
                    f"setting target_modules: '{name}' is shared with another layer, which "
                    "merging would change too"
                )
            if not p.is_meta and not torch.equal(p.cpu(), before[name]):
                raise NloraError(
                    f"setting 'peft_options': this start of {self._kind} changes the base model's "
                    "weights; adapter lora offers such starts (setting start)"
                )
        try:
            self.merged()
        except (ValueError, TypeError, NotImplementedError, AttributeError, RuntimeError) as error:
            raise NloraError(f"{self._kind} cannot be merged: {_short(error)}") from error
        kept = {name: before[name] for name in changed}
        self._put(kept)
        return kept


def _default_targets(model: Any, peft_type: str) -> Targets | None:
    """What PEFT must be told for a tuner that it puts where it puts LoRA; None for others."""
    lora = PEFT_TYPE_TO_TUNER_MAPPING[PeftType.LORA].target_module_mapping
    tuner = PEFT_TYPE_TO_TUNER_MAPPING.get(peft_type)  # type: ignore[arg-type]
    known = getattr(tuner, "target_module_mapping", {})
    alike = known.get("llama") == lora["llama"]
    return choose(model) if alike else None


def _maker(peft_type: str, options: dict[str, Any]) -> Callable[[], Any]:
    """What makes the tuner's configuration anew. Raises NloraError for unknown names."""
    known = {
        kind.value: PEFT_TYPE_TO_CONFIG_MAPPING[kind]
        for kind, tuner in PEFT_TYPE_TO_TUNER_MAPPING.items()
        if isinstance(tuner, type) and issubclass(tuner, BaseTuner)
    }
    if peft_type not in known:
        raise unknown("peft_type", peft_type, known)
    fields = {field.name for field in dataclasses.fields(known[peft_type]) if field.init}
    for name in options:
        if name not in fields:
            raise unknown(f"option of {peft_type}", name, fields)

    def make() -> Any:
        return known[peft_type](**copy.deepcopy(options))

    try:
        make()
    except (ValueError, TypeError, AttributeError) as error:
        raise NloraError(f"setting 'peft_options': {_short(error)}") from error
    return make


def _short(error: Exception) -> str:
    return textwrap.shorten(str(error), 300, placeholder=" …")
