"""SeqFT: all parameters of the model, trained on task after task.

The baseline of the paper's Table 1 that keeps nothing of the earlier tasks on purpose.
"""

from typing import Any

from nlora.methods.base import Method


class SeqFt(Method):
    """Plain fine-tuning, one task after another."""

    name = "seq-ft"
    summary = "all parameters, trained on task after task"
    paper = "arXiv:2410.10179, Table 1 (SeqFT)"
    continues = True

    @property
    def adapter(self) -> str:
        """All parameters."""
        return "full"

    def first_stage(self) -> dict[str, Any]:
        """What a method that may train LoRA adapters instead says of its defaults."""
        return {"penalty": None, "consolidation": "sum", "routing": "none"}
