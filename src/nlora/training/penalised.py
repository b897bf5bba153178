"""Penalties in anybody's training: Transformers' Trainer and its subclasses, or a plain loop."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from transformers import TrainerCallback

from nlora.adapters.lora import Lora
from nlora.errors import NloraError
from nlora.methods.base import Method, Penalty
from nlora.methods.context import Context, Stage
from nlora.methods.parts.terms import never_acting
from nlora.store.packed import put_back, read_packed, write_packed
from nlora.training.gradients import GradientCallback
from nlora.training.in_loss import in_loss
from nlora.training.running import declared
from nlora.training.shards import Shards, sharded

log = logging.getLogger("nlora")

KEPT = "continual_lora"
"""The file in the Trainer's checkpoints."""


class Penalised(TrainerCallback):
    """The training of one update, whose method's penalties are added once per optimiser step."""

    def __init__(self, adapter: Lora, method: Method, optimizer: str) -> None:
        self.adapter = adapter
        self.method = method
        self.optimizer = optimizer
        self.number = 1
        """Of the stage that is trained, for settings that list a value per stage."""
        self.losses: list[dict[str, float]] = []
        """Of each optimiser step: penalties by name, norms of gradients, learning rate."""
        self._gradients: GradientCallback | None = None
        self._total = 0
        self._in_loss = self._as_term = False
        self._clipping: tuple[Any, float] | None = None
        """The Trainer's arguments whose clipping was taken over, and what it was."""

    @property
    def model(self) -> Any:
        """What is trained: a `PeftModel` whose trainable parameters are the fresh adapter's."""
        return self.adapter.model

    def parameters(self) -> list[Parameter]:
        """What an optimiser is given."""
        return self.adapter.trainable()

    @property
    def measured(self) -> dict[str, Any]:
        """What penalties have measured, by name: the factor λ among it."""
        return {p.name: p.notes() for p in self._penalties() if p.notes()}

    @property
    def applied(self) -> bool:
        """Whether penalties were in force in this stage: in steps, or as a term of a loss."""
        return bool(self.losses) or self._as_term

    # A loop of one's own.

    def begin(self, steps: int) -> None:
        """Make penalties ready for a training of so many optimiser steps.

        Raises NloraError for a penalty that the matrices do not allow, and under ZeRO-3.
        """
        if any(hasattr(parameter, "ds_id") for parameter in self.parameters()):
            raise NloraError(
                "DeepSpeed's ZeRO-3 shards the factors that penalties are of: take ZeRO-2, or FSDP2"
            )
        shards = Shards(self.adapter) if sharded(self.adapter) else None
        stage = Stage(self.number, "own script", (), seed=0, steps=steps)
        unknown: Any = None  # no penalty reads texts
        ctx = Context(
            stage=stage,
            adapter=shards or self.adapter,
            encoder=unknown,
            stream=(),
            after=unknown,
            stage_of=lambda task: None,
        )
        penalties = self.method.penalties(ctx)
        for line in never_acting(self.method, [stage], [steps]):
            log.warning(line)
        self._gradients = GradientCallback(
            self.method, ctx, penalties, self.optimizer, shards=shards
        )
        self.losses, self._total, self._as_term = [], steps, False

    def step(self, optimizer: Any, max_grad_norm: float = 0.0) -> None:
        """Add the penalties' gradients to those in `.grad`, clip, and take the optimiser's step.

        With `max_grad_norm` 0 nothing is clipped. Raises NloraError unless training has begun.
        """
        gradients = self._ready()
        gradients.max_grad_norm = max_grad_norm
        gradients.before_step(len(self.losses), self._total, self.parameters())
        optimizer.step()
        gradients.after_step(optimizer)
        self._note(optimizer)

    def loss(self, share: float = 1.0) -> Tensor:
        """So much of the penalties as a term of a loss, instead of `step`'s doing.

        Over the micro-batches of an optimiser step the shares add up to 1. Raises NloraError where
        a weight is measured, or where parameters are sharded.
        """
        if sharded(self.adapter):
            raise NloraError("of sharded parameters penalties are no term of the loss; use `step`")
        if self._gradients is None:
            self.begin(1)
        self._as_term = True
        return share * in_loss(self._penalties(), self.adapter.model.device)

    # Transformers' Trainer.

    def into_loss(self, trainer: Any) -> None:
        """Let the penalties be a term of the Trainer's loss, each micro-batch its share.

        For DeepSpeed, which takes its step before any callback is asked. The loss that is logged is
        that of the task.
        """
        backward = trainer.accelerator.backward
        self._in_loss = True

        def with_penalties(loss: Tensor, **told: Any) -> None:
            share = 1 / trainer.current_gradient_accumulation_steps
            backward(loss + self.loss(share), **told)

        trainer.accelerator.backward = with_penalties

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin, or go on where the Trainer's checkpoint left off."""
        if getattr(args, "deepspeed", None) and not self._in_loss:
            raise NloraError(
                "DeepSpeed takes its step before a callback is asked: call "
                "`lora.into_loss(trainer)` before training"
            )
        self.begin(state.max_steps)
        if state.global_step:
            self._restore(_checkpoint(args, state))
        if not self._in_loss:
            # A training that was broken off has not handed clipping back.
            if self._clipping is not None and self._clipping[0] is args:
                args.max_grad_norm = self._clipping[1]
            self._clipping = (args, args.max_grad_norm)
            self._ready().on_train_begin(args, state, control)

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any
    ) -> None:
        """Add the penalties and clip, unless the step will be skipped (an overflow in fp16)."""
        if self._in_loss:
            return
        self._ready().ctx.step = None
        _unscale(optimizer)
        if not _overflowed(optimizer, self.parameters()):
            self._ready().before_step(len(self.losses), state.max_steps, self.parameters())

    def on_optimizer_step(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any
    ) -> None:
        """Let a penalty act that acts after the step. One that is skipped counts for nothing."""
        if not self._in_loss:
            if self._ready().ctx.step is None:
                return
            self._ready().after_step(optimizer)
        self._note(optimizer)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep what penalties have measured beside the Trainer's checkpoint."""
        if state.is_world_process_zero and (folder := _checkpoint(args, state)).is_dir():
            running = {p.name: {n: getattr(p, n) for n in declared(p)} for p in self._penalties()}
            write_packed(folder, KEPT, {"penalties": running, "losses": self.losses})

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Hand clipping back to the Trainer."""
        if not self._in_loss:
            self._ready().on_train_end(args, state, control)

    def _penalties(self) -> list[Penalty]:
        return [] if self._gradients is None else list(self._gradients.penalties)

    def _ready(self) -> GradientCallback:
        if self._gradients is None:
            raise NloraError("training has not begun: call begin(steps) before the first step")
        return self._gradients

    def _note(self, optimizer: Any) -> None:
        gradients = self._ready()
        self.losses.append(
            {
                "step": len(self.losses) + 1,
                "learning_rate": float(optimizer.param_groups[0]["lr"]),
                **{name: float(norm) for name, norm in gradients.norms.items()},
                **gradients.terms,
            }
        )

    def _restore(self, folder: Path) -> None:
        """What penalties had measured. Raises NloraError where the checkpoint has nothing of it."""
        if not (folder / f"{KEPT}.json").is_file():
            raise NloraError(
                f"{folder} was written without this callback, or the checkpoint is of another "
                "folder than output_dir, where it is looked for; start training anew, or give the "
                "output_dir that it was written to"
            )
        kept = read_packed(folder, KEPT, self.adapter.model.device)
        for penalty in self._penalties():
            put_back(penalty, kept["penalties"][penalty.name])
        self.losses = kept["losses"]


def _checkpoint(args: Any, state: Any) -> Path:
    """Where the Trainer keeps the checkpoint of the step in hand."""
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


def _unscale(optimizer: Any) -> None:
    """Let gradients be those of the loss, which a scaler has made larger for fp16.

    The Trainer does it where it measures their norm, and a scaler refuses to do it twice.
    """
    if (scaler := getattr(optimizer, "scaler", None)) is not None:
        try:
            scaler.unscale_(optimizer.optimizer)
        except RuntimeError as error:
            if "already been called" not in str(error):
                raise


def _overflowed(optimizer: Any, parameters: Iterable[Parameter]) -> bool:
    """Whether gradients were too large for fp16 where a scaler had made them larger, so that it
    will skip the step."""
    if getattr(optimizer, "scaler", None) is None:
        return False
    gradients = [p.grad for p in parameters if p.grad is not None]
    return not all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
