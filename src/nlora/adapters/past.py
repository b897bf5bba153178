"""How the change that earlier updates make is active, beside the adapter that is trained.

Folded   fp32 models. Each adapted weight is W₀ + the change, rebuilt from W₀ so that errors do not
         pile up.
Branch   bf16 or quantised models, where rounding to the weight's grid would lose most of a small
         update. One frozen adapter "history" holds a change of low rank and, once its rank passes a
         bound, is recompressed from the exact factors; the error is recorded.
Dense    bf16 or quantised models and a change that is not of low rank: one more frozen matrix.
Beneath  in a training script of one's own: factors beside each matrix, below PEFT's adapters.
Scaled   while scalars on the earlier updates are trained: all their factors, each pass.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from peft import LoraConfig
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import linear

from nlora.lowrank.factors import Factors, concatenate, recompress

HISTORY = "history"

Change = Callable[[str], Factors | Tensor]
"""The change of the matrix of that name: factors, or dense (out, in)."""


class Past(Protocol):
    """What is active of the earlier updates."""

    error: float
    """The largest relative error with which it stands for the exact change."""

    def put(self, change: Change) -> None:
        """Let this change be active instead of the one before."""
        ...

    def clear(self) -> None:
        """Let none be active."""
        ...


def _dense(change: Factors | Tensor) -> Tensor:
    return change.delta() if isinstance(change, Factors) else change


class Folded:
    """Adapted weights that hold the change themselves."""

    error = 0.0

    def __init__(self, layers: Mapping[str, Any]) -> None:
        self.layers = layers
        self._original: dict[str, Tensor] = {}

    @torch.no_grad()
    def put(self, change: Change) -> None:
        """W₀ + the change in every adapted matrix."""
        for name, layer in self.layers.items():
            base = layer.get_base_layer()
            if name not in self._original:
                # W₀ may be shared with the embeddings, which must not change.
                self._original[name] = base.weight.detach()
                base.weight = Parameter(base.weight.clone(), requires_grad=False)
            delta = _dense(change(name))
            base.weight.copy_(self._original[name] + (delta.T if layer.fan_in_fan_out else delta))

    @torch.no_grad()
    def clear(self) -> None:
        """W₀ in every adapted matrix."""
        for name, original in self._original.items():
            self.layers[name].get_base_layer().weight.copy_(original)


class Branch:
    """One frozen adapter beside the one that is trained."""

    def __init__(self, model: Any, layers: Mapping[str, Any], adapter: str, rank: int) -> None:
        self.model = model
        self.layers = layers
        self.adapter = adapter
        self.rank = rank
        self.error = 0.0

    @torch.no_grad()
    def put(self, change: Change) -> None:
        """The change in the history adapter, of at most `rank`."""
        self.clear()
        factors: dict[str, Factors] = {}
        for name in self.layers:
            whole = change(name)
            assert isinstance(whole, Factors)
            factors[name], error = recompress(whole, self.rank)
            self.error = max(self.error, error)
        rank = max(f.A.shape[0] for f in factors.values())
        own: Any = self.model.peft_config[self.adapter]
        config = LoraConfig(
            task_type=own.task_type, r=rank, lora_alpha=rank, target_modules=own.target_modules
        )
        self.model.add_adapter(HISTORY, config)
        for name, layer in self.layers.items():
            A, B, scaling = factors[name]
            rows = A.shape[0]  # fewer than `rank` where the matrix itself is smaller
            layer.lora_A[HISTORY].weight.zero_()[:rows].copy_(A)
            layer.lora_B[HISTORY].weight.zero_()[:, :rows].copy_(scaling * B)
        self.model.base_model.set_adapter([self.adapter, HISTORY])
        self.model.set_requires_grad([HISTORY], False)

    def clear(self) -> None:
        """No history adapter."""
        self.error = 0.0
        if HISTORY in self.model.peft_config:
            self.model.delete_adapter(HISTORY)
            self.model.base_model.set_adapter([self.adapter])


class Dense:
    """One more frozen matrix beside each adapted one, in the dtype that the layer computes in."""

    error = 0.0

    def __init__(self, layers: Mapping[str, Any], dtype: torch.dtype) -> None:
        self.layers = layers
        self.dtype = dtype
        self._hooks: list[Any] = []

    @torch.no_grad()
    def put(self, change: Change) -> None:
        """x ↦ W₀ x + M x, with M the change."""
        self.clear()
        self.error = 0.0
        for name, layer in self.layers.items():
            exact = _dense(change(name))
            matrix = exact.to(self.dtype)
            size = float(exact.norm())
            if size > 0:
                self.error = max(self.error, float((matrix - exact).norm()) / size)
            base = layer.get_base_layer()
            self._hooks.append(base.register_forward_hook(_add(matrix)))

    def clear(self) -> None:
        """No matrices."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()


def _add(matrix: Tensor) -> Callable[[Any, Any, Tensor], Tensor]:
    def hook(module: Any, inputs: Any, output: Tensor) -> Tensor:
        return output + linear(inputs[0].to(matrix.dtype), matrix).to(output.dtype)

    return hook


class Beneath:
    """Frozen factors beside each adapted matrix, out of PEFT's sight.

    Trainers switch PEFT's adapters off, or to others, for the model that they compare with; what is
    beneath stays in force. As buffers the factors go wherever the model goes, and into no file.
    """

    _PARTS = ("earlier_0", "earlier_1")

    def __init__(self, layers: Mapping[str, Any], rank: int) -> None:
        self.layers = layers
        self.rank = rank
        self.error = 0.0
        self._hooks: list[Any] = []

    @torch.no_grad()
    def put(self, change: Change) -> None:
        """x ↦ W₀ x + s·B·A·x, of at most `rank`; or + M·x, where the change is a matrix."""
        self.clear()
        for name, layer in self.layers.items():
            whole = change(name)
            parts: tuple[Tensor, ...] = (whole,) if isinstance(whole, Tensor) else ()
            if isinstance(whole, Factors):
                (A, B, scaling), error = recompress(whole, self.rank)
                self.error = max(self.error, error)
                parts = A, scaling * B
            base = layer.get_base_layer()
            for part, matrix in zip(self._PARTS, parts, strict=False):
                base.register_buffer(part, matrix.detach().clone(), persistent=False)
            self._hooks.append(base.register_forward_hook(self._add))

    def clear(self) -> None:
        """Nothing."""
        self.error = 0.0
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        for layer in self.layers.values():
            for part in self._PARTS:
                vars(layer.get_base_layer())["_buffers"].pop(part, None)

    def _add(self, module: Any, inputs: Any, output: Tensor) -> Tensor:
        change, factors = inputs[0], dict(module.named_buffers(recurse=False))
        for part in self._PARTS:
            if (matrix := factors.get(part)) is not None:
                change = linear(change.to(matrix.dtype), matrix)
        return output + change.to(output.dtype)


class Scaled:
    """The sum of earlier updates, each times its scalar, which may be trained."""

    def __init__(self, layers: Mapping[str, Any]) -> None:
        self.layers = layers
        self._hooks: list[Any] = []

    @torch.no_grad()
    def put(self, updates: Sequence[Mapping[str, Factors]], scales: Tensor) -> None:
        """x ↦ W₀ x + Σ s_i ΔW_i x, with s (number of updates,) read anew in each pass."""
        self.clear()
        for name, layer in self.layers.items():
            pairs = [update[name] for update in updates]
            ranks = torch.tensor([len(pair.A) for pair in pairs], device=scales.device)
            hook = _scale(concatenate(pairs), ranks, scales)
            self._hooks.append(layer.get_base_layer().register_forward_hook(hook))

    def clear(self) -> None:
        """No updates."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()


def _scale(factors: Factors, ranks: Tensor, scales: Tensor) -> Callable[[Any, Any, Tensor], Tensor]:
    A, B, _ = factors  # (R, in), (out, R)

    def hook(module: Any, inputs: Any, output: Tensor) -> Tensor:
        each = torch.repeat_interleave(scales, ranks, output_size=len(A))  # (R,)
        low = linear(inputs[0].to(A.dtype), A) * each
        return output + linear(low.to(B.dtype), B).to(output.dtype)

    return hook
