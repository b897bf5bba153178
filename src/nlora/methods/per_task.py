"""PerTaskFT: a model of its own for every task, each trained from the base model.

The baseline of the paper's Table 1 that must be told the task of what it answers, and so forgets
nothing and gains nothing. Its adapter decides what a task costs: an adapter, or a whole model.
"""

from typing import Literal

from pydantic import Field

from nlora.methods.parts.lora import AnyAdapter, ConsolidationName, LoraMethod, LoraSettings


class PerTaskSettings(LoraSettings):
    """What is trained; the model is told which task it answers."""

    adapter: AnyAdapter = Field("lora", description="what is trained")
    consolidation: ConsolidationName = Field(
        "none", description=LoraSettings.model_fields["consolidation"].description
    )
    routing: Literal["none", "input", "task"] = Field(
        "task", description=LoraSettings.model_fields["routing"].description
    )


class PerTask(LoraMethod):
    """An update per task that stands alone on the base model."""

    name = "per-task"
    summary = "a model per task, each from the base; prediction is told the task"
    paper = "arXiv:2410.10179, Table 1 (PerTaskFT)"
    Settings = PerTaskSettings
    settings: PerTaskSettings
