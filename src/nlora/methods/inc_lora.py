"""IncLoRA: a new LoRA adapter for each task, on top of all earlier ones, which are frozen.

The baseline of the paper's Table 1, and what N-LoRA and O-LoRA add a penalty to: all hooks keep
their defaults.
"""

from typing import Any

from nlora.methods.parts.lora import LoraMethod, TunedSettings


class IncLora(LoraMethod):
    """A fresh adapter per task; earlier updates stay active."""

    name = "inc-lora"
    summary = "a new LoRA adapter per task on top of the earlier ones"
    paper = "arXiv:2410.10179, Table 1 (IncLoRA)"
    Settings = TunedSettings

    def first_stage(self) -> dict[str, Any]:
        """The settings of every LoRA method alone."""
        return self.lora_first_stage()
