"""Penalties with a weight: a factor λ, or a ratio ρ of gradient norms that is measured.

A constant λ does not carry over between models, ranks and data. As a ratio, over all adapted
matrices jointly,

    λ = ρ·‖g‖ / (c·‖h‖)

with g the moving average of the task's gradient before clipping over a warm-up (the first tenth of
the stage's steps, at least 4) in which λ is 0, and h the gradient of the penalty at its end. λ is
measured once per stage and then constant. c says at which size of the update the ratio is meant:
1 for the size that it has then.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from nlora.errors import NloraError
from nlora.methods.base import Term

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

    from nlora.lowrank.checks import Gradients
    from nlora.lowrank.factors import Factors
    from nlora.methods.base import Method
    from nlora.methods.context import Stage, Step

MOMENTUM = 0.9


Pairs: TypeAlias = "Sequence[tuple[Parameter, Tensor]]"
"""Parameters and the gradients of what is penalised."""


class Weighted(ABC):
    """λ times something. A subclass says what is penalised, with its gradient."""

    name: str

    def __init__(self, weight: float) -> None:
        self.weight = weight

    @abstractmethod
    def value_and_pairs(self) -> tuple[Tensor | float, Pairs]:
        """What is penalised, without its weight, and its gradient by parameter."""

    def growth(self) -> float:
        """c: how many times larger h is at the size of the update that the ratio is meant for."""
        return 1.0

    def __call__(self, step: Step) -> Term | None:
        """λ times what is penalised, and its gradient."""
        import torch

        with torch.no_grad():
            value, pairs = self.value_and_pairs()
            return Term(self.weight * float(value), [(p, self.weight * g) for p, g in pairs])

    def notes(self) -> dict[str, Any]:
        """Nothing is measured."""
        return {}


class OnFactors(Weighted):
    """λ times something of the factors of all adapted matrices; λ is given, or measured.

    With `relative` the weight is the ratio ρ, and λ is measured in a warm-up of `steps` steps.
    """

    running = ("factor", "measured", "_average")

    def __init__(
        self, factors: Iterable[Factors], weight: float, relative: bool, steps: int
    ) -> None:
        import torch

        super().__init__(weight)
        self.factors = list(factors)
        self.parameters: list[Any] = [p for f in self.factors for p in (f.A, f.B)]
        self.relative = relative
        self.warm_up = warm_up(steps) if relative else 0
        self.factor: float | None = None
        """λ, once it is known."""
        self.measured: dict[str, float] = {}
        self._average = [torch.zeros_like(p, dtype=torch.float32) for p in self.parameters]

    @abstractmethod
    def value_and_grads(self) -> tuple[Tensor, Gradients]:
        """What is penalised, without its weight, and (∂/∂A, ∂/∂B) of every matrix."""

    def value_and_pairs(self) -> tuple[Tensor, Pairs]:
        """The same, by parameter. Raises NloraError for a gradient of another shape."""
        value, grads = self.value_and_grads()
        pairs = list(zip(self.parameters, flat(grads), strict=True))
        for number, (parameter, gradient) in enumerate(pairs):
            if gradient.shape != parameter.shape:
                raise NloraError(
                    f"penalty '{self.name}': the gradient of {'AB'[number % 2]} of matrix "
                    f"{number // 2 + 1} is {list(gradient.shape)}, and it is "
                    f"{list(parameter.shape)}; gradients are (∂/∂A, ∂/∂B) per matrix"
                )
        return value, pairs

    def given(self) -> float:
        """λ where it is not measured."""
        return self.weight

    def __call__(self, step: Step) -> Term | None:
        """λ times what is penalised, and its gradient; None during the warm-up."""
        import torch

        with torch.no_grad():
            return self._term(step)

    def _term(self, step: Step) -> Term | None:
        if step.number < self.warm_up:
            for mean, parameter in zip(self._average, self.parameters, strict=True):
                gradient = step.gradients.get(parameter)
                if gradient is not None:
                    mean.lerp_(gradient.float(), 1 - MOMENTUM)
            return None
        value, pairs = self.value_and_pairs()
        if self.factor is None:
            self.factor = self._measure(of_trained(pairs)) if self.relative else self.given()
        return Term(self.factor * float(value), [(p, self.factor * g) for p, g in pairs])

    def _measure(self, gradients: Sequence[Tensor]) -> float:
        correction = 1 - MOMENTUM**self.warm_up  # the average started at 0
        g = norm(self._average) / correction
        h = norm(gradients)
        if h == 0:
            raise NloraError(
                f"the gradient of penalty '{self.name}' is 0 after the warm-up, so its weight "
                "cannot be measured: the adapter did not move (learning rate 0?), or there is "
                "nothing to penalise"
            )
        self._average = []
        self.measured = {"task_gradient": g, "penalty_gradient": h}
        return self.weight * g / (self.growth() * h)

    def notes(self) -> dict[str, Any]:
        """λ as it was used, and the norms it was measured from."""
        return {"lambda": self.factor, "warm_up_steps": self.warm_up, **self.measured}


def warm_up(steps: int) -> int:
    """The steps over which a weight is measured, in a stage of so many."""
    return max(4, math.ceil(steps / 10))


def never_acting(method: Method, stages: Sequence[Stage], steps: Sequence[int]) -> list[str]:
    """A line for each penalty that has no weight in some of the stages of so many steps.

    They are too short to measure it, so the run is one without the penalty there.
    """
    by_name: dict[str, list[int]] = {}
    for stage, count in zip(stages, steps, strict=True):
        for name in method.measured(stage.index) if 0 < count <= warm_up(count) else ():
            by_name.setdefault(name, []).append(count)
    return [
        f"penalty '{name}' never acts in {len(short)} of {len(stages)} stages: they have "
        f"{max(short)} steps or fewer, and its weight is measured over the first {warm_up(0)}; "
        "more epochs or a smaller batch_size give it steps"
        for name, short in by_name.items()
    ]


P = TypeVar("P", bound=OnFactors)


def ready(penalty: P) -> P:
    """The penalty of a stage. What it cannot take is an NloraError now, not after the warm-up."""
    penalty.value_and_pairs()
    return penalty


def flat(grads: Gradients) -> Iterator[Tensor]:
    """∂/∂A and ∂/∂B of every matrix, one after another."""
    return (g for pair in grads for g in pair)


def of_trained(pairs: Sequence[tuple[Any, Tensor]]) -> list[Tensor]:
    """The gradients that a step takes: those of parameters that are trained."""
    return [gradient for parameter, gradient in pairs if parameter.requires_grad]


def norm(tensors: Sequence[Tensor]) -> float:
    """The Euclidean norm of all entries together, in float64."""
    import torch

    norms = [torch.linalg.vector_norm(t, dtype=torch.float64) for t in tensors]
    return float(torch.stack(norms).norm())
