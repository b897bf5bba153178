"""LoRA factors whose parameters are sharded over devices (FSDP2): seen whole, step by step.

A penalty is of whole factors, and they are small. So each process gathers them once per optimiser
step, with the gradients of the task, computes the penalties as any process would, and keeps its
share of their gradients.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate
from torch.nn import Parameter

from nlora.adapters.lora import Lora
from nlora.lowrank.factors import Factors


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which each process may have a share, gathered; all processes ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def sharded(adapter: Lora) -> bool:
    """Whether some of what is trained is sharded."""
    return any(isinstance(parameter, DTensor) for parameter in adapter.trainable())


class Shards(Lora):
    """An adapter as penalties see it: its factors are whole copies of the sharded ones."""

    def __init__(self, adapter: Lora) -> None:
        vars(self).update(vars(adapter))
        own = adapter.factors()
        self._copies = {name: _copied(factors) for name, factors in own.items()}
        self._of_copy: dict[Any, Any] = {}
        for name, copies in self._copies.items():
            self._of_copy |= {copies.A: own[name].A, copies.B: own[name].B}
        self._of_own = {parameter: copy for copy, parameter in self._of_copy.items()}

    def factors(self) -> dict[str, Factors]:
        """The copies, as `gathered` has last made them."""
        return self._copies

    @torch.no_grad()
    def gathered(self, gradients: Mapping[Parameter, Tensor]) -> dict[Parameter, Tensor]:
        """The whole gradients by copy; the copies are made anew."""
        for copy, own in self._of_copy.items():
            copy.copy_(whole(own))
        return {self._of_own[p]: whole(g) for p, g in gradients.items() if p in self._of_own}

    def share(self, copy: Parameter, gradient: Tensor) -> tuple[Any, Tensor]:
        """The parameter of a copy, and this process's share of the gradient, which all have."""
        own: Any = self._of_copy[copy]
        if not isinstance(own, DTensor):
            return own, gradient
        mesh = own.device_mesh
        everywhere = DTensor.from_local(gradient, mesh, [Replicate()] * mesh.ndim, run_check=False)
        return own, everywhere.redistribute(mesh, own.placements)


def _copied(factors: Factors) -> Factors:
    A, B = (Parameter(whole(p.detach()).clone()) for p in factors[:2])
    return Factors(A, B, factors.scaling)
