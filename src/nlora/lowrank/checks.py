"""What every penalty asks of the factors it is given."""

import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Concatenate, ParamSpec

import torch
from torch import Tensor

from nlora.errors import NloraError
from nlora.lowrank.factors import Factors, check

Gradients = list[tuple[Tensor, Tensor]]
P = ParamSpec("P")
Penalty = Callable[Concatenate[Sequence[Factors], P], tuple[Tensor, Gradients]]


def checked(penalty: Penalty[P]) -> Penalty[P]:
    """The penalty, refusing bad factors, without autograd, half-precision factors taken as fp32.

    Entries that are NaN or infinite always reach the value, so that alone is looked at: no pass
    over the entries, and one wait for a GPU.
    """

    @wraps(penalty)
    @torch.no_grad()
    def inner(
        factors: Sequence[Factors], *args: P.args, **kwargs: P.kwargs
    ) -> tuple[Tensor, Gradients]:
        check_all(factors)
        wide = [Factors(_wide(A), _wide(B), float(scaling)) for A, B, scaling in factors]
        with torch.autocast(wide[0].A.device.type, enabled=False):
            value, grads = penalty(wide, *args, **kwargs)
        if not torch.isfinite(value):
            check_all(factors, entries=True)
            raise NloraError("the factors are so large that the penalty overflows")
        return value, grads

    return inner


def check_all(factors: Sequence[Factors], entries: bool = False) -> None:
    """Raise NloraError unless these are the factors of at least one matrix, each a valid pair."""
    if not factors:
        raise NloraError("a penalty needs at least one adapted matrix")
    for j, (A, B, scaling) in enumerate(factors):
        check(Factors(A, B, scaling), f"matrix {j + 1}", entries)


def check_weight(weight: float, name: str = "the weight") -> None:
    """Raise NloraError unless it is finite and at least 0."""
    if not (math.isfinite(weight) and weight >= 0):
        raise NloraError(f"{name} must be a number of at least 0, not {weight}")


def _wide(factor: Tensor) -> Tensor:
    return factor.to(torch.promote_types(factor.dtype, torch.float32))
