"""The update as LoRA factors and, beside them, a whole change of each matrix, made of small steps.

    ΔW = s·B·A + D,  and in a step  D ← D + scale·U·C·V,  C ← 0

D (out, in) is frozen; trained are A, B and C (k, k), a core between two frozen bases U (out, k)
and V (k, in) that a method sets (`turn`). C is 0 before every step, so it costs the optimiser k²
entries a matrix, while D takes on any rank over time (GaLore's idea, arXiv:2403.03507, by two
sides). The newest state replaces the one before.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import linear

from nlora.adapters.base import Abilities, Beginning, snapshot
from nlora.adapters.lora import Lora
from nlora.adapters.peft_config import MOVED_BASE
from nlora.adapters.settings import AdapterSettings
from nlora.adapters.whole import Whole
from nlora.errors import NloraError
from nlora.lowrank.factors import Factors

PARTS = ("whole", "left", "right")
"""D, U and V: buffers of each adapted matrix' own layer, so that checkpoints keep them."""


class LoraAndWhole(Whole):
    """One update that is continued: factors, and a whole change of each matrix."""

    name = "lora-and-whole"
    summary = "LoRA factors, and a whole change of each matrix by steps of low rank"
    can = Abilities(merge=True)
    needs_fp32 = False
    file = "update.safetensors"

    def __init__(self, model: Any, settings: AdapterSettings, core_rank: int = 8) -> None:
        self.lora = Lora.build(model, settings)
        super().__init__(self.lora.model, keep=True)
        self.targets = self.lora.targets
        self.layers = {n: layer.get_base_layer() for n, layer in self.lora.layers.items()}
        self._trained = False
        self._hooks = []
        for name, factors in self.lora.factors().items():
            layer, (A, B, _) = self.layers[name], factors
            rank = min(core_rank, A.shape[1], len(B))
            for part, shape in zip(PARTS, [(len(B), A.shape[1]), (len(B), rank)], strict=False):
                layer.register_buffer(part, A.new_zeros(shape), persistent=False)
            layer.register_buffer("right", A.new_zeros(rank, A.shape[1]), persistent=False)
            layer.core = Parameter(A.new_zeros(rank, rank))
            self._hooks.append(layer.register_forward_hook(_add))

    @classmethod
    def build(cls, model: Any, settings: AdapterSettings, core_rank: int = 8) -> Self:
        """Factors as the settings say; `core_rank` is k.

        Raises NloraError for a start that takes a part of the base model's weights, which is not
        saved.
        """
        if settings.start.startswith(MOVED_BASE):
            raise NloraError(
                f"adapter '{cls.name}' does not keep what start={settings.start} takes from the "
                "base model's weights; leave it out"
            )
        return cls(model, settings, core_rank)

    def factors(self) -> dict[str, Factors]:
        """A and B of each matrix, as they are trained."""
        return self.lora.factors()

    def cores(self) -> dict[str, Parameter]:
        """C of each matrix, (k, k)."""
        return {name: layer.core for name, layer in self.layers.items()}

    def matrices(self) -> dict[str, Any]:
        """PEFT's layers."""
        return self.lora.layers

    def update(self) -> dict[str, Tensor]:
        """A, B and D of every adapted matrix."""
        found = {}
        for name, (A, B, _) in self.factors().items():
            found |= {f"{name}.A": A, f"{name}.B": B, f"{name}.D": self.layers[name].whole}
        return found

    def prepare(self, asked: Beginning) -> None:
        """A = drawn, B = 0, D = 0 before the first stage; then go on."""
        if not self._trained:
            self.lora.begin()
        self.change()
        self._trained = True
        self._start = snapshot(self.update().values()) if asked.keep_previous else []

    def watch(self, on: bool) -> None:
        """Whether backward passes from now on leave ∂L/∂ΔW for `gradients`, which costs memory."""
        for layer in self.layers.values():
            layer.whole.requires_grad_(on)

    def gradients(self) -> dict[str, Tensor]:
        """∂L/∂ΔW of each matrix, (out, in), since they were last asked for; watched ones alone."""
        found = {}
        for name, layer in self.layers.items():
            if layer.whole.grad is not None:
                found[name], layer.whole.grad = layer.whole.grad, None
        return found

    @torch.no_grad()
    def turn(self, name: str, left: Tensor, right: Tensor) -> None:
        """Let the core of a matrix stand between these bases, (out, k) and (k, in)."""
        self.layers[name].left.copy_(left)
        self.layers[name].right.copy_(right)

    @torch.no_grad()
    def absorb(self, scale: float = 1.0) -> None:
        """Let D take up what the cores have become: D ← D + scale·U·C·V, C ← 0."""
        for layer in self.layers.values():
            layer.whole += scale * (layer.left @ layer.core @ layer.right)
            layer.core.zero_()

    def consolidate(self) -> None:
        """Leave no core that is not 0, and watch nothing."""
        self.absorb()
        self.watch(False)

    def load(self, folders: Sequence[Path]) -> None:
        """The last saved state, or none."""
        super().load(folders)
        self._trained = bool(folders)

    @torch.no_grad()
    def merged(self) -> Any:
        """The plain model with both changes in its weights."""
        for hook in self._hooks:
            hook.remove()
        transposed = {n: layer.fan_in_fan_out for n, layer in self.lora.layers.items()}
        plain = self.lora.merged()
        for name, layer in self.layers.items():
            layer.weight += layer.whole.T if transposed[name] else layer.whole
            del layer.core
            for part in PARTS:
                delattr(layer, part)
        return plain


def _add(layer: Any, inputs: Any, output: Tensor) -> Tensor:
    """x ↦ W·x + D·x + U·C·V·x."""
    x = inputs[0].to(layer.whole.dtype)
    small = linear(linear(linear(x, layer.right), layer.core), layer.left)
    return output + (linear(x, layer.whole) + small).to(output.dtype)
