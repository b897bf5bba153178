"""Trackers of the Trainer: the same names in each, and a run for each stage.

Names are `train/…` of steps and `eval/…` of what is measured after the stage. Left to themselves
MLflow's names have no such beginning, MLflow and trackio end their run before a stage is measured,
and W&B goes on with one run, whose steps would begin anew.
"""

from typing import Any

from transformers import Trainer
from transformers.integrations.integration_utils import (
    MLflowCallback,
    TrackioCallback,
    WandbCallback,
    rewrite_logs,
)


class _MLflow(MLflowCallback):
    def on_log(self, args: Any, state: Any, control: Any, logs: Any, **others: Any) -> None:  # type: ignore[override]
        super().on_log(args, state, control, rewrite_logs(logs), **others)

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Nothing: there is more to come."""

    def end(self, args: Any, state: Any, control: Any) -> None:
        super().on_train_end(args, state, control)


class _Trackio(TrackioCallback):
    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Nothing: there is more to come."""

    def end(self, args: Any, state: Any, control: Any) -> None:
        super().on_train_end(args, state, control)


class _Wandb(WandbCallback):
    own = False
    """Whether the run was begun here, and not by the script that this is called from."""

    def setup(self, args: Any, state: Any, model: Any, **others: Any) -> None:
        self.own = self._wandb is not None and self._wandb.run is None
        super().setup(args, state, model, **others)

    def end(self, args: Any, state: Any, control: Any) -> None:
        if self.own and self._wandb is not None and state.is_world_process_zero:
            self._wandb.finish()


_OURS = {MLflowCallback: _MLflow, TrackioCallback: _Trackio, WandbCallback: _Wandb}


def take_over(trainer: Trainer) -> None:
    """Replace the trackers that a trainer was made with, where ours differ."""
    for theirs, ours in _OURS.items():
        if trainer.pop_callback(theirs) is not None:
            trainer.add_callback(ours())


def end(tracker: Any, args: Any, state: Any, control: Any) -> None:
    """Say that nothing more comes of this stage."""
    if isinstance(tracker, tuple(_OURS.values())):
        tracker.end(args, state, control)
