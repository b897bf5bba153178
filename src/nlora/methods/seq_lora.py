"""SeqLoRA: one LoRA adapter that is trained on task after task.

The baseline of the paper's Table 1 that keeps nothing of the earlier tasks on purpose.
"""

from typing import Any

from nlora.methods.parts.lora import LoraMethod, TunedSettings


class SeqLora(LoraMethod):
    """One adapter, continued from task to task."""

    name = "seq-lora"
    summary = "one LoRA adapter, continued from task to task"
    paper = "arXiv:2410.10179, Table 1 (SeqLoRA)"
    continues = True
    Settings = TunedSettings

    def first_stage(self) -> dict[str, Any]:
        """The settings of every LoRA method alone."""
        return self.lora_first_stage()
