"""MTL: all tasks at once, the upper bound of the paper's Table 1. It is no continual learning.

The paper does not say whether all parameters or LoRA adapters are trained: setting `carrier`.
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from nlora.data.task import TaskData
from nlora.methods.lora import LoraMethod, LoraSettings


class MtlSettings(LoraSettings):
    """Where the one update lives."""

    carrier: Literal["full", "lora"] = Field("lora", description="what is trained")


class Mtl(LoraMethod):
    """One stage of all tasks."""

    name = "mtl"
    summary = "all tasks trained together (upper bound, no continual learning)"
    paper = "arXiv:2410.10179, Table 1 (MTL)"
    Settings = MtlSettings
    settings: MtlSettings
    needs_old_data = True

    @property
    def carrier(self) -> str:
        """All parameters or LoRA, as set."""
        return self.settings.carrier

    def stages(self, stream: Sequence[TaskData]) -> list[tuple[str, tuple[TaskData, ...]]]:
        """One stage that trains on every task."""
        return [("mtl", tuple(stream))]
