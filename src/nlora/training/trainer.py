"""One stage through the Hugging Face Trainer: a loss from the method, penalties by a callback."""

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.integrations.integration_utils import get_reporting_integration_callbacks
from transformers.training_args import OptimizerNames

from nlora import processes
from nlora.data.batches import IGNORED, Collator, TrainingOrder
from nlora.data.encode import Encoded
from nlora.errors import NloraError, unknown
from nlora.methods.base import Method, Penalty, Proximal, Stage, Step, per_stage
from nlora.store.directory import stage_folder
from nlora.training.config import RunSettings
from nlora.training.progress import Watcher
from nlora.training.rates import step_rates


class PenaltyCallback(TrainerCallback):
    """Adds the gradients of penalties once per optimiser step, before clipping.

    The Trainer clips before it calls any callback, so this one takes clipping over while it
    trains: `max_grad_norm` of the arguments is 0 meanwhile. Exact under gradient accumulation and
    DDP; it needs gradients in `.grad`, which DeepSpeed does not leave there.
    """

    def __init__(self, penalties: Sequence[Penalty], terms: dict[str, float]) -> None:
        self.penalties = penalties
        self.terms = terms
        """Where the value of each term at this step is left, by name."""
        self.max_grad_norm = 0.0
        self.clipped: Tensor | float = 1.0
        """What clipping left of the gradient of this step: a factor of at most 1."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take clipping over."""
        self.max_grad_norm, args.max_grad_norm = args.max_grad_norm, 0.0

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Hand clipping back."""
        args.max_grad_norm = self.max_grad_norm

    @torch.no_grad()
    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        """Add every penalty's gradient to the task's, then clip their sum."""
        trained = [p for p in model.parameters() if p.grad is not None]
        step = Step(state.global_step, state.max_steps, {p: p.grad for p in trained})
        computed = {penalty.name: penalty(step) for penalty in self.penalties}
        for name, term in computed.items():
            self.terms[name] = 0.0 if term is None else term.value
            for parameter, gradient in [] if term is None else term.gradients:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                parameter.grad.add_(gradient.to(parameter.grad.dtype))
        if self.max_grad_norm > 0:
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), self.max_grad_norm)
            self.clipped = (self.max_grad_norm / norm).clamp(max=1.0)

    def on_optimizer_step(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any
    ) -> None:
        """Let proximal penalties take their step, at the rates of the optimiser's."""
        for penalty in self.penalties:
            if isinstance(penalty, Proximal):
                penalty.after(step_rates(optimizer, self.clipped))


class StageTrainer(Trainer):
    """The Trainer of one stage. Every loss term of every step ends up in `losses`."""

    def __init__(
        self,
        method: Method,
        stage: Stage,
        sampler: Sampler[int],
        watcher: Watcher,
        penalties: Sequence[Penalty],
        **trainer: Any,
    ) -> None:
        super().__init__(**trainer)
        # Count the answer tokens of the whole optimiser step and divide nothing here: the method's
        # sums are divided by that count. (Left to itself the Trainer multiplies T5's gradients by
        # the number of micro-batches.)
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True
        self.method = method
        self.stage = stage
        self.sampler = sampler
        self.watcher = watcher
        self.terms: dict[str, float] = {}
        self.penalties: dict[str, float] = {}
        self.losses: list[dict[str, float]] = []
        self.remove_callback(PrinterCallback)
        if penalties:
            self.add_callback(PenaltyCallback(penalties, self.penalties))

    def get_train_dataloader(self) -> DataLoader:
        """Every process goes through the same batches, and collates its share of each.

        (Left to itself accelerate fills up the last batch with examples of the first.)
        """
        loader: DataLoader = DataLoader(
            self.train_dataset,  # type: ignore[arg-type]
            batch_size=self.args.per_device_train_batch_size * processes.count(),
            sampler=self.sampler,
            collate_fn=_shared(self.data_collator),
            pin_memory=self.args.dataloader_pin_memory,
        )
        return prepare_data_loader(
            loader, self.args.device, num_processes=1, process_index=0, put_on_device=True
        )

    def compute_loss(  # type: ignore[override]
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor:
        """The sum of the method's terms for one micro-batch, a share of the step's mean."""
        assert num_items_in_batch is not None
        terms = self.method.loss(model, inputs, num_items_in_batch)
        if processes.count() > 1 and not (inputs["labels"] != IGNORED).any():
            terms = {name: 0.0 * value for name, value in terms.items()}  # nothing to do here
        for name, value in terms.items():
            self.terms[name] = self.terms.get(name, 0.0) + float(value.detach())
        # DDP averages gradients over processes, and each counted all processes' tokens.
        return sum(terms.values(), start=torch.zeros(())) * self.accelerator.num_processes

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Called after every step: keep its terms, and stop at a loss that is not a number."""
        if "loss" in logs:
            shares = processes.gathered(self.terms)
            terms = {name: sum(share[name] for share in shares) for name in self.terms}
            terms |= self.penalties
            step = {
                "step": self.state.global_step,
                "epoch": round(self.state.epoch or 0.0, 4),
                "learning_rate": logs["learning_rate"],
                "gradient_norm": float(logs["grad_norm"]),
                **terms,
            }
            for name, value in step.items():
                if not math.isfinite(value):
                    raise self._diverged(f"{name} is {value}")
            self.losses.append(step)
            self.watcher.advance(1, loss=sum(terms.values()))
            logs = {**logs, **{f"loss/{name}": value for name, value in terms.items()}}
            self.terms.clear()
        super().log(logs, start_time)

    def check_finite(self) -> None:
        """Raise NloraError if the last step, whose outcome no loss has seen, left no numbers."""
        for name, parameter in self.model.named_parameters():  # type: ignore[union-attr]
            if parameter.requires_grad and not parameter.isfinite().all():
                raise self._diverged(f"{name} is not finite any more")

    def _diverged(self, what: str) -> NloraError:
        return NloraError(
            f"stage '{self.stage.name}', step {self.state.global_step}: {what}; "
            "training stopped (a smaller learning_rate may help), earlier stages stand"
        )


def count_steps(examples: int, settings: RunSettings, stage: int) -> int:
    """Optimiser steps of a stage."""
    epochs = int(per_stage(settings.epochs, stage, "epochs"))
    return epochs * math.ceil(examples / settings.batch_size)


def check_available(settings: RunSettings) -> None:
    """Raise NloraError for an optimiser or a tracker that this machine does not have."""
    name = "optimizer"
    if settings.optimizer not in list(OptimizerNames):
        raise unknown(name, settings.optimizer, [known.value for known in OptimizerNames])
    try:
        asked = TrainingArguments(optim=settings.optimizer, use_cpu=not torch.cuda.is_available())
        Trainer.get_optimizer_cls_and_kwargs(asked)
        name = "report_to"
        for tracker in get_reporting_integration_callbacks(settings.report_to):
            tracker()
    except (ValueError, ImportError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [repr(error)])[0]
        raise NloraError(f"setting '{name}': {reason}") from error


def train(
    method: Method,
    model: Any,
    stage: Stage,
    examples: Sequence[Encoded],
    penalties: Sequence[Penalty],
    settings: RunSettings,
    collator: Collator,
    autocast: bool,
    watcher: Watcher,
    logs: Path,
) -> list[dict[str, float]]:
    """Train one stage; the loss terms of each step. Trackers' files go below `logs`."""
    world = processes.count()
    rows, uneven = divmod(settings.batch_size, settings.accumulation * world)
    if uneven:
        raise NloraError(
            f"batch_size {settings.batch_size} cannot be split evenly into "
            f"{settings.accumulation} micro-batches on {world} processes"
        )
    with tempfile.TemporaryDirectory() as scratch:
        tracked = settings.report_to != "none"
        folder = stage_folder(stage.index, stage.name)
        arguments = TrainingArguments(
            output_dir=str(logs / folder) if tracked else scratch,
            run_name=f"{method.name} {folder}",
            num_train_epochs=per_stage(settings.epochs, stage.index, "epochs"),
            per_device_train_batch_size=rows,
            gradient_accumulation_steps=settings.accumulation,
            learning_rate=per_stage(settings.learning_rate, stage.index, "learning_rate"),
            lr_scheduler_type=settings.schedule,
            optim=settings.optimizer,
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            activation_checkpointing=settings.gradient_checkpointing,
            bf16=autocast,
            use_cpu=not torch.cuda.is_available(),
            seed=stage.seed,
            logging_steps=1,
            logging_nan_inf_filter=False,
            save_strategy="no",
            report_to=settings.report_to,
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=torch.cuda.is_available(),
            ddp_find_unused_parameters=False,
            ddp_broadcast_buffers=False,  # they never change
        )
        arguments._n_gpu = min(arguments.n_gpu, 1)  # or one process would use all GPUs (slowly)
        trainer = StageTrainer(
            method=method,
            stage=stage,
            sampler=TrainingOrder(examples, settings.batch_size, stage.seed),
            watcher=watcher,
            penalties=penalties,
            model=model,
            args=arguments,
            train_dataset=[  # type: ignore[arg-type]
                replace(example, index=i) for i, example in enumerate(examples)
            ],
            data_collator=collator,
        )
        with processes.own_random_numbers(stage.seed):
            trainer.train()
        # Or the model would compute in autocast for good, one wrapper more after every stage.
        trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
        trainer.check_finite()
        return trainer.losses


def _shared(collate: Callable[[list[Any]], dict[str, Any]]) -> Callable[[list[Any]], Any]:
    """Collates this process's share of a batch.

    Where a last batch has none for it, an example whose answer does not count stands in.
    """

    def collated(examples: list[Any]) -> dict[str, Any]:
        mine = processes.share(examples)
        batch = collate(list(mine or examples[:1]))
        if not mine:
            batch["labels"].fill_(IGNORED)
        return batch

    return collated
