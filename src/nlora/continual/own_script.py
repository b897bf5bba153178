"""Continual learning in a training script of one's own: earlier updates, penalty and commit.

`ContinualLora` puts earlier updates into a Transformers model and a fresh adapter on top of them.
Whoever trains that, Transformers' Trainer, its subclasses or a plain loop, gets the penalties of
`n-lora` and `o-lora` once per optimiser step, as if they stood in the loss. `commit` makes what was
trained a stage of a model directory.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import Parameter
from transformers import TrainerCallback

from nlora import processes
from nlora.adapters.given import given
from nlora.adapters.lora import Lora
from nlora.adapters.past import Beneath
from nlora.continual.bringing import Brought, bring
from nlora.continual.earlier import Earlier, earlier_updates, training_choice
from nlora.continual.guard import Guard, RepairMode, SetAside
from nlora.data.encode import Encoder
from nlora.data.prompts import Prompter
from nlora.data.task import TaskData
from nlora.errors import NloraError
from nlora.methods.base import Penalty
from nlora.methods.context import Context, Stage
from nlora.progress import Progress
from nlora.store.packed import put_back, read_packed, write_packed
from nlora.training.gradients import GradientCallback
from nlora.training.in_loss import in_loss
from nlora.training.running import declared
from nlora.training.shards import Shards, sharded

KEPT = "continual_lora"
"""The file in the Trainer's checkpoints."""


class HasData(Protocol):
    """What holds a task's examples, as `nlora.Task` does."""

    @property
    def data(self) -> TaskData: ...


class ContinualLora(TrainerCallback):
    """Earlier updates in force, frozen, and a fresh LoRA adapter on top that is penalised.

    `model` is a plain Transformers model, which is changed in place; train and save `self.model`.
    `previous` is a model directory, to go on as it stands, or PEFT's LoRA adapters (folders or Hub
    names), oldest first. `penalty` is a norm of the new update (`nlora methods n-lora`), "none" for
    none; `orthogonal` the weight of its overlap with the earlier ones (O-LoRA; True is 0.5).
    `weight` is "relative", where the penalty's gradient is `l1` (0.05) of the task's, measured over
    the first tenth of the steps, or the number λ that multiplies the norm. `settings` are those of
    `nlora methods n-lora` and `o-lora`: rank, alpha, dropout, target_modules, l1, …; by default
    those of the earlier updates.

    It is a callback for Trainer and its subclasses (`callbacks=[lora]`), also with accumulation,
    clipping, mixed precision, DDP and FSDP2. In a loop of one's own call `begin` once, and `step`
    in place of clipping and the optimiser's step. For DeepSpeed see `into_loss`.

    Raises NloraError for a setting or an earlier update that does not go together with the model.
    """

    def __init__(
        self,
        model: Any,
        previous: str | Path | Iterable[str | Path] = (),
        penalty: str = "l1",
        orthogonal: float | bool = 0.0,
        weight: float | str = "relative",
        **settings: Any,
    ) -> None:
        if hasattr(model, "peft_config"):
            raise NloraError(
                "the model has adapters already; give the plain model, and its adapters as previous"
            )
        self.base = model
        self.earlier: Earlier = earlier_updates(model, previous)
        self.choice = training_choice(self.earlier, penalty, orthogonal, weight, settings)
        run = self.choice.run
        self.adapter = Lora(
            model,
            run.rank,
            run.alpha,
            run.dropout,
            run.target_modules,
            history_rank=run.history_rank,
            consolidation=self.earlier.consolidation,
            start=run.start,
            past=Beneath,  # the weights stay what they are, whoever saves them
        )
        self.earlier.put_into(self.adapter)
        self.adapter.begin()
        self.losses: list[dict[str, float]] = []
        """Of each optimiser step: penalties by name, norms of gradients, learning rate."""
        self._gradients: GradientCallback | None = None
        self._total = 0
        self._in_loss = False

    @property
    def model(self) -> Any:
        """What is trained: a `PeftModel` whose trainable parameters are the fresh adapter's."""
        return self.adapter.model

    def parameters(self) -> list[Parameter]:
        """What an optimiser is given."""
        return self.adapter.trainable()

    def rows(self, task: TaskData | HasData, tokenizer: Any) -> list[dict[str, list[int]]]:
        """The task's training examples as `input_ids` and `labels`, asked as its tests will be.

        Raises NloraError as `Encoder` does.
        """
        run, data = self.choice.run, _data(task)
        asks = Prompter(run.prompt, run.chat, tokenizer)
        reads = bool(self.base.config.is_encoder_decoder)
        encoder = Encoder(tokenizer, asks, reads, run.max_length, run.max_text_tokens)
        return [example.row(reads) for example in encoder.all(data.train)]

    @property
    def measured(self) -> dict[str, Any]:
        """What penalties have measured, by name: the factor λ among it."""
        return {p.name: p.notes() for p in self._penalties() if p.notes()}

    # A loop of one's own.

    def begin(self, steps: int) -> None:
        """Make penalties ready for a training of so many optimiser steps.

        Raises NloraError for a penalty that the matrices do not allow.
        """
        shards = Shards(self.adapter) if sharded(self.adapter) else None
        stage = Stage(len(self.earlier) + 1, "own script", (), seed=0, steps=steps)
        unknown: Any = None  # no penalty reads texts
        ctx = Context(
            stage=stage,
            adapter=shards or self.adapter,
            encoder=unknown,
            stream=(),
            after=unknown,
            stage_of=lambda task: None,
        )
        method = self.choice.method
        self._gradients = GradientCallback(
            method, ctx, method.penalties(ctx), self.choice.run.optimizer, shards=shards
        )
        self.losses, self._total = [], steps

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
            self._ready().on_train_begin(args, state, control)

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any
    ) -> None:
        """Add the penalties and clip, unless the step will be skipped (an overflow in fp16)."""
        if self._in_loss:
            return
        self._ready().ctx.step = None
        if not _overflowed(optimizer, self.parameters()):
            self._ready().before_step(state.global_step, state.max_steps, self.parameters())

    def on_optimizer_step(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any
    ) -> None:
        """Let a penalty act that acts after the step."""
        if not self._in_loss and self._ready().ctx.step is not None:
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

    # What becomes of it.

    def load(self, adapter: str | Path) -> None:
        """Let the update be that of a saved adapter, such as the Trainer's output folder.

        Raises NloraError where it is no plain LoRA of the same matrices, or of a larger rank.
        """
        self.adapter.put(given(str(adapter)).factors(self.adapter.factors()))

    @processes.together()
    def commit(
        self,
        out: str | Path,
        task: TaskData | HasData | None = None,
        name: str | None = None,
        max_forgetting: float | None = None,
        repair: RepairMode = "offer",
        tokenizer: Any = None,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Make what was trained a stage of a model directory; its results.

        The directory is the one in `previous`, or a new one, in which earlier adapters are stages
        of their own. `task` (a `TaskData`, or what has one as `data`) brings the tests by which
        this and later stages are measured, and the training examples, where the directory's method
        looks at them (a router); without one the stage is called `name` and counts in no metric.
        The base model must be what `model.name_or_path` says, since `nlora` loads it from there.
        With `max_forgetting` the stage stands only if no earlier task loses more points, as with
        `nlora learn`. Afterwards a fresh adapter is on top of it.

        Raises NloraError if the directory holds something else, SetAside where the guard refuses.
        """
        if sharded(self.adapter):
            raise NloraError(
                "the adapter is sharded over processes: save it (`trainer.save_model`), and commit "
                "it from one process after `ContinualLora.load`"
            )
        brought = Brought(
            self.base,
            self.adapter,
            self.earlier,
            self.choice,
            {"steps": len(self.losses), **self.measured},
            self.losses,
        )
        data = None if task is None else _data(task)
        guard = None if max_forgetting is None else Guard(max_forgetting, repair)
        try:
            found = bring(brought, Path(out), data, name, guard, tokenizer, progress)
        except SetAside:
            self._begin_anew()
            raise
        self.earlier = earlier_updates(self.base, out)
        self._begin_anew()
        return found

    def _begin_anew(self) -> None:
        """A fresh adapter, and no training."""
        self.adapter.begin()
        self._gradients = None

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
            raise NloraError(f"{folder} was written without this callback; start training anew")
        kept = read_packed(folder, KEPT, self.adapter.model.device)
        for penalty in self._penalties():
            put_back(penalty, kept["penalties"][penalty.name])
        self.losses = kept["losses"]


def _data(task: TaskData | HasData) -> TaskData:
    return task if isinstance(task, TaskData) else task.data


def _checkpoint(args: Any, state: Any) -> Path:
    """Where the Trainer keeps the checkpoint of the step in hand."""
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


def _overflowed(optimizer: Any, parameters: Iterable[Parameter]) -> bool:
    """Whether gradients that a scaler has made larger for fp16 are too large, so that it will skip
    the step."""
    if getattr(optimizer, "scaler", None) is None:
        return False
    gradients = [p.grad for p in parameters if p.grad is not None]
    return not all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
