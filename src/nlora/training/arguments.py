"""What the Trainer is told of a stage, and whether what the settings name is there."""

from pathlib import Path

import torch
from transformers import Trainer, TrainingArguments
from transformers.integrations.integration_utils import get_reporting_integration_callbacks
from transformers.training_args import OptimizerNames

from nlora import processes
from nlora.backbones.attention import check_here
from nlora.errors import NloraError, first_line, unknown
from nlora.methods.base import Method, per_stage
from nlora.methods.context import Context
from nlora.plan.settings import RunSettings
from nlora.store.directory import stage_folder


def check_available(settings: RunSettings) -> None:
    """Raise NloraError for an optimiser, an attention or a tracker that is not there here."""
    check_here(settings.attention, settings.precision)
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
        reason = first_line(error)
        raise NloraError(f"setting '{name}': {reason}") from error


def stage_arguments(
    method: Method, ctx: Context, run: RunSettings, autocast: bool, logs: Path, scratch: str
) -> TrainingArguments:
    """The Trainer's arguments for the stage of the context.

    What it writes goes to `logs` if a tracker reads it, else to the folder `scratch`. Raises
    NloraError for a batch that cannot be split evenly over micro-batches and processes.
    """
    stage, world = ctx.stage, processes.count()
    rows, uneven = divmod(run.batch_size, run.accumulation * world)
    if uneven:
        raise NloraError(
            f"batch_size {run.batch_size} cannot be split evenly into "
            f"{run.accumulation} micro-batches on {world} processes"
        )
    folder = stage_folder(stage.index, stage.name)
    arguments = TrainingArguments(
        output_dir=str(logs / folder) if run.report_to != "none" else scratch,
        run_name=f"{method.name} {folder}",
        num_train_epochs=per_stage(run.epochs, stage.index, "epochs"),
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=run.accumulation,
        learning_rate=per_stage(run.learning_rate, stage.index, "learning_rate"),
        lr_scheduler_type=run.schedule,
        optim=run.optimizer,
        weight_decay=run.weight_decay,
        max_grad_norm=run.max_grad_norm,
        activation_checkpointing=run.gradient_checkpointing,
        bf16=autocast,
        use_cpu=not torch.cuda.is_available(),
        seed=stage.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to=run.report_to,
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,  # they never change
    )
    arguments.mixed_precision = "bf16" if autocast else "no"  # whatever accelerate was told
    arguments._n_gpu = min(arguments.n_gpu, 1)  # or one process would use all GPUs (slowly)
    return arguments
