"""Penalties as a term of the loss, for engines that leave no gradients to add to (DeepSpeed).

The term's gradient is the analytic one that penalties come with: nothing of size out × in is kept
for the backward pass.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nlora.errors import NloraError
from nlora.methods.base import Penalty
from nlora.methods.context import Step

ANY_STEP = Step(0, 1)
"""Penalties of a given weight are the same at every step."""


def in_loss(penalties: Sequence[Penalty], device: torch.device) -> Tensor:
    """The sum of penalties, a scalar to add to a loss. Raises NloraError if one cannot be added.

    That is one whose weight is measured over the first steps, or that acts after the step.
    """
    terms = []
    for penalty in penalties:
        term = penalty(ANY_STEP)
        if term is None:
            raise NloraError(
                f"the weight of penalty '{penalty.name}' is measured by gradients, which a term "
                "of the loss does not see: give weight a number, such as the lambda that a run "
                "without DeepSpeed has measured"
            )
        if not term.gradients:
            raise NloraError(f"penalty '{penalty.name}' acts after the step and is no loss term")
        terms.append(term)
    total = torch.zeros((), device=device)
    for term in terms:
        parameters, gradients = zip(*term.gradients, strict=True)
        total = total + _Term.apply(term.value, gradients, device, *parameters)  # type: ignore[operator]
    return total


class _Term(torch.autograd.Function):
    """A value whose gradients are known."""

    @staticmethod
    def forward(
        ctx: Any,
        value: float,
        gradients: Sequence[Tensor],
        device: torch.device,
        *parameters: Tensor,
    ) -> Tensor:
        """The value, as a scalar."""
        ctx.save_for_backward(*gradients)
        return torch.tensor(value, device=device)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        """The gradients, times what is above; autograd gives them the parameters' dtype."""
        return None, None, None, *(g * upstream[0].to(g.device) for g in ctx.saved_tensors)
