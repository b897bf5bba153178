"""The update as a LoRA adapter (PEFT): ΔW = (α/r)·B @ A at every adapted matrix.

The newest update is PEFT's adapter "default". Earlier ones are kept as factors; `consolidation`
says what model they make together, at a cost that does not grow with their number (`past`):

sum       W₀ + ΣΔW_i (the paper's)
largest   W₀ + per entry the ΔW_i of largest magnitude. A task is trained on top of what the tasks
          before it make together, and joins them afterwards
none      each update is trained and stands alone on W₀; a method that asks for this chooses among
          them (routing)
"""

import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, TaskType, get_peft_model, set_peft_model_state_dict
from peft.tuners.lora import Linear
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import Parameter

from nlora.carriers.base import snapshot, swapped, ties_told
from nlora.carriers.dropout import Dropout
from nlora.carriers.past import Branch, Dense, Folded, Past
from nlora.errors import NloraError
from nlora.lowrank.consolidate import largest
from nlora.lowrank.factors import Factors, concatenate

ADAPTER = "default"

Consolidation = Literal["sum", "largest", "none"]


class Lora:
    """A fresh adapter per stage, or one that is continued."""

    name = "lora"

    def __init__(
        self,
        model: Any,
        rank: int,
        alpha: float,
        dropout: float,
        target_modules: str | list[str] | None = None,
        fold: bool = True,
        history_rank: int = 128,
        consolidation: Consolidation = "sum",
    ) -> None:
        kind = TaskType.SEQ_2_SEQ_LM if model.config.is_encoder_decoder else TaskType.CAUSAL_LM
        config = LoraConfig(
            task_type=kind,
            r=rank,
            lora_alpha=alpha,  # type: ignore[arg-type]
            lora_dropout=dropout,
            target_modules=target_modules,
        )
        self.model: Any = _wrapped(model, config)
        self.layers = _layers(self.model)
        for layer in self.layers.values() if dropout > 0 else ():
            layer.lora_dropout[ADAPTER] = Dropout(dropout)
        self.past: list[dict[str, Factors]] = []
        """The factors of every earlier update, by matrix, oldest first."""
        self.replaces = False
        self._trained = False
        self._start: list[Tensor] = []
        self.consolidation = consolidation
        self._consolidated = False
        """Whether the update in hand has joined the past, as `largest` needs it to."""
        self._in_force: Past = Folded(self.layers)
        if not fold and consolidation == "largest":
            self._in_force = Dense(self.layers, model.dtype)
        elif not fold:
            self._in_force = Branch(self.model, self.layers, ADAPTER, history_rank)

    def factors(self) -> dict[str, Factors]:
        """The trainable factors of this stage's update, by matrix."""
        return {
            name: Factors(
                layer.lora_A[ADAPTER].weight,
                layer.lora_B[ADAPTER].weight,
                float(layer.scaling[ADAPTER]),
            )
            for name, layer in self.layers.items()
        }

    def trainable(self) -> list[Parameter]:
        """A and B of every adapted matrix."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def begin(self, continued: bool = False, keep_previous: bool = False) -> None:
        """A fresh adapter on top of all earlier updates, or the last one continued."""
        self.replaces = continued and self._trained
        if not self.replaces:
            if self._trained:
                self.past.append(self._copy())
            # First, since the history branch draws random numbers that it does not keep.
            for layer in self.layers.values():
                layer.reset_lora_parameters(ADAPTER, init_lora_weights=True)
            self._put_past_in_force(consolidated=False)
        self._start = snapshot(self.trainable()) if keep_previous else []
        self._trained = True

    def consolidate(self) -> None:
        """The update in hand is trained: let it join the earlier ones."""
        self._put_past_in_force(consolidated=True)

    def previous(self) -> AbstractContextManager[None]:
        """The model as it was when this stage began."""
        return swapped(self.trainable(), self._start)

    def save(self, folder: Path) -> None:
        """A PEFT adapter that plain `PeftModel.from_pretrained` loads on the base model."""
        config = self.model.peft_config[ADAPTER]
        if isinstance(config.target_modules, set):  # or every process would write another order
            config.target_modules = sorted(config.target_modules)
        self.model.save_pretrained(
            str(folder), selected_adapters=[ADAPTER], save_embedding_layers=False
        )
        (folder / "README.md").unlink(missing_ok=True)

    def load(self, folders: Sequence[Path]) -> None:
        """Put saved adapters in force; the last stays the one that `begin` may continue."""
        if folders:
            self._read(folders)
            self._trained = True

    @contextmanager
    def standing(self, folders: Sequence[Path]) -> Iterator[None]:
        """The model that these saved adapters make, W₀ if none, instead of the one in hand."""
        past, values, consolidated = self.past, snapshot(self.trainable()), self._consolidated
        self.past = []
        try:
            self._read(folders)
            yield
        finally:
            self.past = past
            with torch.no_grad():
                for parameter, value in zip(self.trainable(), values, strict=True):
                    parameter.copy_(value)
            self._put_past_in_force(consolidated)

    def _read(self, folders: Sequence[Path]) -> None:
        *earlier, newest = [load_file(f / "adapter_model.safetensors") for f in folders] or [None]
        for tensors in earlier:
            set_peft_model_state_dict(self.model, tensors, adapter_name=ADAPTER)
            self.past.append(self._copy())
        if newest is None:
            for layer in self.layers.values():
                layer.reset_lora_parameters(ADAPTER, init_lora_weights=True)
        else:
            set_peft_model_state_dict(self.model, newest, adapter_name=ADAPTER)
        self._put_past_in_force(consolidated=True)

    def merged(self) -> Any:
        """The plain model: the newest update is folded into the weights like those before it."""
        self.past.append(self._copy())
        self._put_past_in_force(consolidated=False)
        return ties_told(self.model.unload())

    def notes(self) -> dict[str, float]:
        """The relative error with which a frozen branch stands for the earlier updates."""
        return {} if isinstance(self._in_force, Folded) else {"history_error": self._in_force.error}

    def _copy(self) -> dict[str, Factors]:
        return {
            name: Factors(f.A.detach().clone(), f.B.detach().clone(), f.scaling)
            for name, f in self.factors().items()
        }

    def _put_past_in_force(self, consolidated: bool) -> None:
        self._consolidated = consolidated
        if not self.past or self.consolidation == "none":
            self._in_force.clear()
        elif self.consolidation == "sum":
            self._in_force.put(lambda name: concatenate([u[name] for u in self.past]))
        elif not consolidated:
            self._in_force.put(lambda name: largest([u[name] for u in self.past]))
        else:  # the newest stays the adapter, so what is in force beside it is the difference
            new = self._copy()
            self._in_force.put(
                lambda name: largest([*(u[name] for u in self.past), new[name]]) - new[name].delta()
            )


def adapted(model: Any, target_modules: str | list[str] | None) -> tuple[Any, dict[str, Any]]:
    """The model, frozen but otherwise as it was, and the matrices that LoRA would adapt, by name.

    These are PEFT's layers around them (`get_base_layer`, `in_features`, `fan_in_fan_out` …), of
    which none is in the model. Raises NloraError as `Lora` does.
    """
    wrapped = _wrapped(model, LoraConfig(r=1, target_modules=target_modules))
    layers = _layers(wrapped)
    return wrapped.unload(), layers


def _wrapped(model: Any, config: LoraConfig) -> Any:
    try:
        return get_peft_model(model, config)
    except (ValueError, re.error) as error:
        reason = textwrap.shorten(str(error), 300, placeholder=" …")
        raise NloraError(
            f"cannot put LoRA adapters into this model: {reason} (setting target_modules)"
        ) from error


def _layers(model: Any) -> dict[str, Any]:
    """The adapted matrices by name. Raises NloraError for kinds that have no one ΔW."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = {}
    for name, module in model.base_model.model.named_modules():
        if isinstance(module, Linear):
            layers[name] = module
        elif isinstance(module, BaseTunerLayer):
            raise NloraError(
                f"setting target_modules: '{name}' is a {type(module.get_base_layer()).__name__}; "
                "only linear layers can be adapted"
            )
    return layers
