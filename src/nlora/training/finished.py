"""A model directory that is used and not trained: its tasks, and the model as it was left."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nlora.data.task import TaskData
from nlora.errors import NloraError
from nlora.models.catalog import resolve
from nlora.store.directory import ModelDirectory
from nlora.training.config import plan
from nlora.training.progress import Watcher
from nlora.training.run import learned_tasks, settle, stored_config


def tasks_of(model_dir: Path) -> list[TaskData]:
    """The tasks that were learned there. Raises NloraError if there is no model, or none was."""
    directory = ModelDirectory(model_dir)
    if not directory.exists():
        raise NloraError(f"{model_dir} holds no model")
    learned = learned_tasks(directory)
    if not learned:
        raise NloraError(f"{model_dir} has learned no task yet")
    return learned


def restored(
    model_dir: Path, learned: Sequence[TaskData], watcher: Watcher, fp32: bool = False
) -> Any:
    """The `Learner` with the model as the last stage left it.

    With `fp32` all of it is in fp32, whatever it was trained in. Raises NloraError if the base
    model is another one than the one that was trained on.
    """
    from nlora.models.backbone import load
    from nlora.training.learner import Learner, weights_dtype

    directory = ModelDirectory(model_dir)
    config = stored_config(directory)
    resolved = resolve(config.model)
    planned, _ = settle(plan(config, resolved.recommended), directory, None)
    watcher.message(f"loading {config.model}")
    backbone = load(resolved, weights_dtype(planned))
    if fp32:
        # After loading: the base that was trained on may have been rounded to bf16.
        backbone.model.float()
        in_fp32 = planned.run.model_copy(update={"precision": "fp32"})
        planned = planned.model_copy(update={"run": in_fp32})
    learner = Learner(planned, backbone, directory, learned, watcher)
    learner.restore()
    return learner
