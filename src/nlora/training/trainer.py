"""The Hugging Face Trainer below the loop: one stage, a loss from the method, our own sampler."""

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer
from transformers.integrations.integration_utils import get_reporting_integration_callbacks

from nlora import processes
from nlora.backbones.sharding import is_sharded
from nlora.data.batches import IGNORED, Collator, TrainingOrder
from nlora.errors import NloraError
from nlora.methods.base import Method, overrides
from nlora.methods.context import Context, Step
from nlora.plan.settings import RunSettings
from nlora.store.records import tracked
from nlora.training import trackers
from nlora.training.arguments import stage_arguments
from nlora.training.checkpoint import Keeper
from nlora.training.gradients import GradientCallback, check_names


class StageTrainer(Trainer):
    """The Trainer of one stage. Every loss term of every step ends up in `losses`."""

    def __init__(
        self,
        method: Method,
        ctx: Context,
        run: RunSettings,
        gradients: GradientCallback,
        autocast: bool,
        logs: Path,
        keeper: Keeper | None = None,
    ) -> None:
        tokenizer = ctx.encoder.tokenizer
        collate = Collator(
            tokenizer.pad_token_id,
            ctx.encoder.encoder_decoder,
            # A prefix that is read once would count once in what a method measures of the inputs,
            # and may be one no more when the method has changed the batch.
            # Of a sharded model all processes make as many passes.
            share_prefix=run.shared_prefix == "auto"
            and not is_sharded(ctx.model)
            and not (method.needs_covariances or method.needs_magnitudes)
            and not overrides(method, "batch"),
            packed=run.packing,
        )
        self.scratch = tempfile.TemporaryDirectory()
        super().__init__(
            model=ctx.model,
            args=stage_arguments(method, ctx, run, autocast, logs, self.scratch.name),
            train_dataset=ctx.encoded,  # type: ignore[arg-type]
            data_collator=lambda examples: method.batch(ctx, collate(examples)),
        )
        # Count the answer tokens of the whole optimiser step and divide nothing here: the method's
        # sums are divided by that count. (Left to itself the Trainer multiplies T5's gradients by
        # the number of micro-batches.)
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True
        self.method = method
        self.ctx = ctx
        self.gradients = gradients
        self.sampler = TrainingOrder(ctx.encoded, run.batch_size, ctx.stage.seed)
        self.terms: dict[str, Tensor] = {}
        """The method's terms, summed over this process's micro-batches of the step."""
        self.losses: list[dict[str, float]] = []
        self.keeper = keeper
        """Writes checkpoints; None: none are kept."""
        self.remove_callback(PrinterCallback)
        trackers.take_over(self)
        self.add_callback(gradients)

    def losses_of_training(self) -> list[dict[str, float]]:
        """Train; the losses of each step. Raises NloraError where they are numbers no more."""
        own_numbers = processes.own_random_numbers(self.ctx.stage.seed)
        with self.scratch, own_numbers, self.gradients.measuring():
            self._train()
        # Or the model would compute in autocast for good; and marked as prepared it would be left
        # out of autocast in the next stage.
        self.accelerator.unwrap_model(self.ctx.model, keep_fp32_wrapper=False)
        vars(self.ctx.model).pop("_is_accelerate_prepared", None)
        self.ctx.network, self.ctx.step = None, None
        self._check_finite()
        return self.losses

    def _train(self) -> None:
        """All steps, or those after the checkpoint that the stage goes on from."""
        keeper = self.keeper
        if keeper is None or keeper.folder is None:
            self.train()
            return
        self.losses = keeper.from_step.losses
        self.ctx.progress.advance(keeper.from_step.step)
        self.train(resume_from_checkpoint=str(keeper.folder))

    # The Trainer finds out where to go on (`trainer_state.json`), and asks for the rest by these:

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        assert self.keeper is not None
        self.keeper.restore_parameters()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self.keeper is not None:
            self.keeper.restore_rest(self.optimizer, self.lr_scheduler, self.gradients)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing: `_load_optimizer_and_scheduler` and `_collated` have done it in time."""

    def _load_scaler(self, checkpoint: str | None) -> None:
        """Nothing: bf16 needs none."""

    def _collated(self, collate: Callable[[list[Any]], dict[str, Any]]) -> Callable[..., Any]:
        """`collate`, with the random numbers of an unbroken run."""
        keeper = self.keeper
        if keeper is None:
            return collate
        steps = math.ceil(len(self.ctx.encoded) / self.sampler.batch_size)
        middle = keeper.from_step.step % steps != 0

        def collated(examples: list[Any]) -> dict[str, Any]:
            first = keeper.collating(middle)
            batch = collate(examples)
            if first:
                keeper.restore_random()
            return batch

        return collated

    def get_train_dataloader(self) -> DataLoader:
        """Every process goes through the same batches, and collates its share of each.

        (Left to itself accelerate fills up the last batch with examples of the first.)
        """
        loader: DataLoader = DataLoader(
            self.train_dataset,  # type: ignore[arg-type]
            batch_size=self.args.per_device_train_batch_size * processes.count(),
            sampler=self.sampler,
            collate_fn=self._collated(_shared(self.data_collator)),
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
        ctx = self.ctx
        ctx.network, ctx.tokens = model, num_items_in_batch
        ctx.step = Step(self.state.global_step, self.state.max_steps)
        with self.gradients.measured(inputs) as batch:
            terms = self.method.loss(ctx, batch)
        if not self.terms:
            check_names([*terms, *(penalty.name for penalty in self.gradients.penalties)])
        if processes.count() > 1 and not (inputs["labels"] != IGNORED).any():
            terms = {name: 0.0 * value for name, value in terms.items()}  # nothing to do here
        for name, value in terms.items():
            self.terms[name] = self.terms.get(name, 0.0) + value.detach().double()
        # DDP averages gradients over processes, and each counted all processes' tokens.
        return sum(terms.values(), start=torch.zeros(())) * self.accelerator.num_processes

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Called after every step: keep its terms, and stop at a loss that is not a number."""
        if "loss" in logs:
            terms = {**self._summed_terms(), **self.gradients.terms}
            step = {
                "step": self.state.global_step,
                "epoch": round(self.state.epoch or 0.0, 4),
                "learning_rate": logs["learning_rate"],
                **{name: float(norm) for name, norm in self.gradients.norms.items()},
                **terms,
            }
            for name, value in step.items():
                if not math.isfinite(value):
                    raise self._diverged(f"{name} is {value}")
            self.losses.append(step)
            self.ctx.progress.advance(1, loss=sum(terms.values()))
            # "loss" beside "loss/task" would be a file and a folder of one name where MLflow has
            # files; the terms and `gradient_norm` say the same.
            told = {k: v for k, v in logs.items() if k not in ("loss", "grad_norm")}
            super().log({**told, **tracked(step)}, start_time)
        else:
            super().log(logs, start_time)
        if "loss" not in logs or self.keeper is None:
            return
        # A stage that was ended early is not to be gone on with.
        ended = self.control.should_training_stop and self.state.global_step < self.state.max_steps
        if not ended and self.keeper.due(self.state.global_step):
            self.keeper.write(
                self.state, self.optimizer, self.lr_scheduler, self.gradients, self.losses
            )

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Nothing: the Trainer counts parameters at every micro-batch, for a sum nobody reads."""
        return 0

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> None:
        """Nothing: `gradients` measures it when the penalties are in, and clips."""

    def teller(self) -> Callable[[Mapping[str, float]], None]:
        """What gives the trackers numbers measured after the stage, as `eval/NAME`, the last ones.

        It holds nothing of the training, neither gradients nor the optimiser.
        """
        args, state, control = self.args, self.state, self.control
        kinds = tuple(get_reporting_integration_callbacks(args.report_to))
        told = [c for c in self.callback_handler.callbacks if isinstance(c, kinds)]

        def tell(values: Mapping[str, float]) -> None:
            named = {f"eval_{name}": value for name, value in values.items()}
            for tracker in told:
                tracker.on_log(args, state, control, logs=dict(named))
                trackers.end(tracker, args, state, control)

        return tell

    def _summed_terms(self) -> dict[str, float]:
        """The step's terms over all processes, fetched from the device at once."""
        names = sorted(self.terms)
        summed = processes.summed(torch.stack([self.terms[name] for name in names]))
        found = dict(zip(names, summed.tolist(), strict=True))
        ordered = {name: found[name] for name in self.terms}
        self.terms.clear()
        return ordered

    def _check_finite(self) -> None:
        """Raise NloraError if the last step, whose outcome no loss has seen, left no numbers."""
        for name, parameter in self.model.named_parameters():  # type: ignore[union-attr]
            if parameter.requires_grad and not parameter.isfinite().all():
                raise self._diverged(f"{name} is not finite any more")

    def _diverged(self, what: str) -> NloraError:
        return NloraError(
            f"stage '{self.ctx.stage.name}', step {self.state.global_step}: {what}; "
            "training stopped (a smaller learning_rate may help), earlier stages stand"
        )


def _shared(collate: Callable[[list[Any]], dict[str, Any]]) -> Callable[[list[Any]], Any]:
    """Collates this process's share of a batch.

    Where a last batch has none for it, an example whose answer does not count stands in.
    """

    def collated(examples: Sequence[Any]) -> dict[str, Any]:
        mine = processes.share(examples)
        batch = collate(list(mine or examples[:1]))
        if not mine:
            batch["labels"].fill_(IGNORED)
        return batch

    return collated
