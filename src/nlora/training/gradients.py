"""What happens to gradients once per optimiser step, between the last backward pass and the step.

Penalties are added, a method may change the sum, and then it is clipped.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from transformers import TrainerCallback

from nlora import processes
from nlora.adapters.covariance import TokenMeans
from nlora.errors import NloraError
from nlora.methods.base import Method, Penalty, Proximal, Term, Until, overrides
from nlora.methods.context import Context, Rates, Step
from nlora.training.rates import readable, step_rates
from nlora.training.shards import Shards, whole

log = logging.getLogger("nlora")

LOGGED = ("step", "epoch", "learning_rate", "gradient_norm", "penalty_gradient_norm")
"""What is logged of every step beside the terms."""


class GradientCallback(TrainerCallback):
    """Adds penalties, lets the method change gradients, and clips, once per optimiser step.

    The Trainer clips before it calls any callback, so this one takes clipping over while it
    trains: `max_grad_norm` of the arguments is 0 meanwhile. Exact under gradient accumulation, DDP
    and FSDP2; it needs gradients in `.grad`, which DeepSpeed does not leave there (`in_loss`).
    """

    def __init__(
        self,
        method: Method,
        ctx: Context,
        penalties: Sequence[Penalty],
        optimizer: str,
        until: Until | None = None,
        shards: Shards | None = None,
    ) -> None:
        check_names(penalty.name for penalty in penalties)
        self.method = method
        self.ctx = ctx
        self.penalties = penalties
        self.optimizer = optimizer
        self.until = until
        self.shards = shards
        """Where the parameters are sharded: what the penalties see of them."""
        self.covariances = ctx.input_covariances() if method.needs_covariances else None
        self.magnitudes = ctx.output_magnitudes() if method.needs_magnitudes else None
        self.changes_gradients = overrides(method, "gradients")
        acting = any(isinstance(penalty, Proximal) for penalty in penalties)
        self.keeps_gradients = method.keeps_gradients or acting
        """Whether the task's gradient is looked at when `.grad` holds it no more."""
        self.guessed = False
        """Whether step sizes were asked for that cannot be read."""
        self.terms: dict[str, float] = {}
        """The value of each penalty at this step, by name."""
        self.norms: dict[str, Tensor] = {}
        """`gradient_norm`, of task and penalties together before clipping; and that of the
        penalties alone, `penalty_gradient_norm`, where there are any."""
        self.max_grad_norm = 0.0
        self.clipped: Tensor | float = 1.0
        """What clipping left of the gradient of this step: a factor of at most 1."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take clipping over."""
        self.max_grad_norm, args.max_grad_norm = args.max_grad_norm, 0.0

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Hand clipping back."""
        args.max_grad_norm = self.max_grad_norm

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        """As `before_step` says."""
        self.before_step(state.global_step, state.max_steps, list(model.parameters()))

    @torch.no_grad()
    def before_step(self, number: int, total: int, parameters: Sequence[Parameter]) -> None:
        """Add every penalty's gradient to the task's, let the method change it, clip.

        To step `number`, 0 for the first, of `total`, and the gradients of these parameters.
        """
        own = {p: p.grad for p in parameters if p.grad is not None}
        if self.keeps_gradients:
            own = {p: g.clone() for p, g in own.items()}
        if self.shards is not None:
            own = self.shards.gathered(own)
        self.ctx.step = step = Step(
            number,
            total,
            own,
            covariances=_means(self.covariances),
            magnitudes=self._magnitudes(),
        )
        self._add([(penalty.name, penalty(step)) for penalty in self.penalties])
        if self.changes_gradients:
            for parameter, gradient in (self.method.gradients(self.ctx) or {}).items():
                if gradient.shape != parameter.shape:
                    raise NloraError(
                        f"{self.method.name}: a gradient is {list(gradient.shape)} for a parameter "
                        f"of {list(parameter.shape)}"
                    )
                parameter.grad = gradient.to(parameter.dtype)
        bound = self.max_grad_norm or float("inf")
        norm = whole(torch.nn.utils.clip_grad_norm_(parameters, bound))
        self.norms["gradient_norm"] = norm
        self.clipped = (bound / norm).clamp(max=1.0) if self.max_grad_norm else 1.0

    def on_optimizer_step(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any
    ) -> None:
        """As `after_step` says."""
        self.after_step(optimizer)

    def after_step(self, optimizer: Any) -> None:
        """Let proximal penalties and the method act, at the rates of the optimiser's step."""
        assert self.ctx.step is not None
        step = replace(self.ctx.step, rates=self._rates(optimizer))
        for penalty in self.penalties:
            if isinstance(penalty, Proximal):
                penalty.after(step)
        self.ctx.step = step
        self.method.after_step(self.ctx)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the stage where the method says so, in all processes alike."""
        if self.until is not None and processes.from_main(self.until.reached()):
            control.should_training_stop = True

    def notes(self) -> dict[str, Any]:
        """What the stage should record: step sizes that were guessed, and what ended it."""
        guessed = {"step_sizes": "learning rate"} if self.guessed else {}
        return {**guessed, **({} if self.until is None else self.until.notes())}

    def _rates(self, optimizer: Any) -> Rates:
        """The rates of the step; a warning where they are asked for and cannot be read."""
        read = step_rates(optimizer, self.clipped)
        if readable(self.optimizer):
            return read

        def rate(parameter: Parameter) -> Tensor | float:
            if not self.guessed:
                self.guessed = True
                log.warning(
                    "the step sizes of optimizer '%s' cannot be read: what acts after its steps "
                    "goes by the learning rate alone",
                    self.optimizer,
                )
            return read(parameter)

        return rate

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Measure what the method needs of the passes of training."""
        with self.covariances or nullcontext(), self.magnitudes or nullcontext():
            yield

    @contextmanager
    def measured(self, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The batch, whose passes are measured."""
        with (
            self.covariances.of(batch) if self.covariances else nullcontext(batch) as seen,
            self.magnitudes.of(seen) if self.magnitudes else nullcontext(seen) as seen_again,
        ):
            yield seen_again

    def _magnitudes(self) -> dict[Parameter, Tensor]:
        """By trained weight those of its layer's outputs."""
        if self.magnitudes is None:
            return {}
        weights = self.magnitudes.weights
        return {weights[name]: mean for name, mean in _means(self.magnitudes).items()}

    def _add(self, computed: Sequence[tuple[str, Term | None]]) -> None:
        together: dict[Parameter, Tensor] = {}
        for name, term in computed:
            self.terms[name] = 0.0 if term is None else term.value
            for parameter, gradient in [] if term is None else term.gradients:
                if self.shards is not None:
                    parameter, gradient = self.shards.share(parameter, gradient)
                if not parameter.requires_grad:  # frozen in this stage
                    continue
                gradient = gradient.to(parameter.dtype)
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                parameter.grad.add_(gradient)
                known = together.get(parameter)
                together[parameter] = gradient if known is None else known + gradient
        if computed:
            norms = [torch.linalg.vector_norm(g, dtype=torch.float32) for g in together.values()]
            total = torch.stack([*map(whole, norms)]).norm() if norms else torch.zeros(())
            self.norms["penalty_gradient_norm"] = total


def check_names(names: Iterable[str]) -> None:
    """Raise NloraError unless each name is one's own: terms are logged by it, step by step."""
    seen: set[str] = set(LOGGED)
    for name in names:
        if name in seen:
            raise NloraError(f"two loss terms or penalties are logged as '{name}'; rename one")
        seen.add(name)


def _means(measured: TokenMeans | None) -> dict[str, Tensor]:
    """What was measured in a step, over all processes, and then forgotten."""
    if measured is None:
        return {}
    sums = {name: processes.summed(own) for name, own in measured.sums().items()}
    found = measured.means(sums)
    measured.clear()
    return found
