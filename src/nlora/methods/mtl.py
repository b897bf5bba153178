"""MTL: all tasks at once, the upper bound of the paper's Table 1. It is no continual learning.

The paper does not say whether all parameters or LoRA adapters are trained: setting `adapter`.
"""

from collections.abc import Sequence

from pydantic import Field

from nlora.data.task import TaskData
from nlora.methods.parts.lora import AnyAdapter, LoraMethod, LoraSettings


class MtlSettings(LoraSettings):
    """Where the one update lives."""

    adapter: AnyAdapter = Field("lora", description="what is trained")


class Mtl(LoraMethod):
    """One stage of all tasks."""

    name = "mtl"
    summary = "all tasks trained together (upper bound, no continual learning)"
    paper = "arXiv:2410.10179, Table 1 (MTL)"
    Settings = MtlSettings
    settings: MtlSettings

    @property
    def needs_old_data(self) -> bool:
        """All tasks are there at once."""
        return True

    def stages(self, stream: Sequence[TaskData]) -> list[tuple[str, tuple[TaskData, ...]]]:
        """One stage that trains on every task."""
        return [("mtl", tuple(stream))]
