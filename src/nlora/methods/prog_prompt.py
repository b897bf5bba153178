"""ProgPrompt: a soft prompt per task, read together with those of all earlier tasks.

"Progressive Prompts: Continual Learning for Language Models" (arXiv:2301.12314). The model stays
frozen; the prompts of earlier tasks are frozen too and are read after the new one: [P_k, …, P_1,
text]. To predict for task k the model must be told k, so nothing is forgotten by construction, and
the method counts as independent training. Published: 10 vectors per task, learning rate 0.3, AdamW
with weight decay 1e-5, which are the defaults here, and 10 epochs of batch 8, which are a budget
and left to `epochs` and `batch_size`. The published code keeps the prompt of the best epoch by
validation and clips no gradients; here it is the last prompt, and `max_grad_norm` a run's setting.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from nlora.methods.base import Method, Settings


class ProgPromptSettings(Settings):
    """The prompt of each task."""

    prompt_length: int = Field(10, gt=0, description="vectors per task")


class ProgPrompt(Method):
    """A fresh soft prompt per task before all earlier ones."""

    name = "prog-prompt"
    summary = "a soft prompt per task on a frozen model; prediction is told the task"
    paper = "arXiv:2301.12314"
    Settings = ProgPromptSettings
    settings: ProgPromptSettings

    @property
    def needs_task_id(self) -> bool:
        """Which prompts are read depends on it."""
        return True

    @property
    def storage_grows(self) -> bool:
        """By a prompt per task."""
        return True

    @property
    def adapter(self) -> str:
        """Soft prompts."""
        return "prompt"

    def run_defaults(self) -> dict[str, Any]:
        """The optimiser of the method's paper."""
        return {"learning_rate": 0.3, "weight_decay": 1e-5}

    def adapter_options(self) -> dict[str, Any]:
        """The prompts stand one behind the other."""
        from nlora.adapters.layouts import Concatenated

        return {"layout": Concatenated(self.settings.prompt_length)}
