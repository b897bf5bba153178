"""The update as a LoRA adapter (PEFT): ΔW = (α/r)·B @ A at every adapted matrix.

The newest update is PEFT's adapter "default". Earlier ones are kept as factors and are in force in
one of two ways, at a cost that does not grow with their number:

fold     fp32 models. Each adapted weight is W₀ + ΣΔW, rebuilt from W₀ so that errors do not pile
         up.
branch   bf16 or quantised models, where rounding to the weight's grid would lose most of a small
         update. One frozen adapter "history" holds their sum, concatenated along the rank and, once
         that passes `history_rank`, recompressed from the exact factors; the error is recorded.
"""

import re
import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, TaskType, get_peft_model, set_peft_model_state_dict
from peft.tuners.lora import Linear
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import Parameter

from nlora.carriers.base import snapshot, swapped
from nlora.errors import NloraError
from nlora.lowrank.factors import Factors, concatenate, recompress

ADAPTER, HISTORY = "default", "history"


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
    ) -> None:
        self.fold = fold
        self.history_rank = history_rank
        kind = TaskType.SEQ_2_SEQ_LM if model.config.is_encoder_decoder else TaskType.CAUSAL_LM
        config = LoraConfig(
            task_type=kind,
            r=rank,
            lora_alpha=alpha,  # type: ignore[arg-type]
            lora_dropout=dropout,
            target_modules=target_modules,
        )
        try:
            self.model: Any = get_peft_model(model, config)
        except (ValueError, re.error) as error:
            reason = textwrap.shorten(str(error), 300, placeholder=" …")
            raise NloraError(
                f"cannot put LoRA adapters into this model: {reason} (setting target_modules)"
            ) from error
        self.layers = _layers(self.model)
        self.past: list[dict[str, Factors]] = []
        """The factors of every earlier update, by matrix, oldest first."""
        self.replaces = False
        self._trained = False
        self._start: list[Tensor] = []
        self._original: dict[str, Tensor] = {}
        self._history_error = 0.0

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
            self._put_past_in_force()
        self._start = snapshot(self.trainable()) if keep_previous else []
        self._trained = True

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
        if not folders:
            return
        updates = [load_file(folder / "adapter_model.safetensors") for folder in folders]
        for tensors in updates[:-1]:
            set_peft_model_state_dict(self.model, tensors, adapter_name=ADAPTER)
            self.past.append(self._copy())
        self._put_past_in_force()
        set_peft_model_state_dict(self.model, updates[-1], adapter_name=ADAPTER)
        self._trained = True

    def notes(self) -> dict[str, float]:
        """The relative error with which the history branch stands for the earlier updates."""
        return {} if self.fold else {"history_error": self._history_error}

    def _copy(self) -> dict[str, Factors]:
        return {
            name: Factors(f.A.detach().clone(), f.B.detach().clone(), f.scaling)
            for name, f in self.factors().items()
        }

    def _put_past_in_force(self) -> None:
        if not self.past:
            return
        together = {name: concatenate([u[name] for u in self.past]) for name in self.layers}
        if self.fold:
            self._fold(together)
        else:
            self._branch(together)

    @torch.no_grad()
    def _fold(self, together: dict[str, Factors]) -> None:
        for name, layer in self.layers.items():
            base = layer.get_base_layer()
            if name not in self._original:
                # W₀ may be shared with the embeddings, which must not change.
                self._original[name] = base.weight.detach()
                base.weight = Parameter(base.weight.clone(), requires_grad=False)
            delta = together[name].delta()
            base.weight.copy_(self._original[name] + (delta.T if layer.fan_in_fan_out else delta))

    @torch.no_grad()
    def _branch(self, together: dict[str, Factors]) -> None:
        small = {name: recompress(f, self.history_rank) for name, f in together.items()}
        self._history_error = max(error for _, error in small.values())
        rank = max(f.A.shape[0] for f, _ in small.values())
        if HISTORY in self.model.peft_config:
            self.model.delete_adapter(HISTORY)
        old: Any = self.model.peft_config[ADAPTER]
        config = LoraConfig(
            task_type=old.task_type, r=rank, lora_alpha=rank, target_modules=old.target_modules
        )
        self.model.add_adapter(HISTORY, config)
        for name, layer in self.layers.items():
            (small_A, small_B, _), _ = small[name]
            rows = small_A.shape[0]  # fewer than `rank` where the matrix itself is smaller
            layer.lora_A[HISTORY].weight.zero_()[:rows].copy_(small_A)
            layer.lora_B[HISTORY].weight.zero_()[:, :rows].copy_(small_B)
        self.model.base_model.set_adapter([ADAPTER, HISTORY])
        self.model.set_requires_grad([HISTORY], False)


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
