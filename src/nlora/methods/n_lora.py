"""N-LoRA: sparse updates that hardly meet.

A new LoRA adapter per task with an ℓ₁ penalty on ΔW = B·A (Eq. 4):

    L = L_task + λ‖ΔW‖₁

where "Is Parameter Collision Hindering Continual Learning in LLMs?" (arXiv:2410.10179) writes A·B
for the transpose. The earlier updates are frozen and active. `parts.sparsity` has the penalty
and its units; with `l1` 0 this is IncLoRA, bit for bit.
"""

from typing import Any

from pydantic import Field

from nlora.methods.base import Weight
from nlora.methods.parts.lora import LoraMethod, LoraSettings
from nlora.methods.parts.sparsity import SparsityKind


class NLoraSettings(LoraSettings):
    """N-LoRA's defaults of the penalty."""

    penalty: SparsityKind = Field(
        "l1", description=LoraSettings.model_fields["penalty"].description
    )
    l1: Weight = Field(0.05, description=LoraSettings.model_fields["l1"].description)


class NLora(LoraMethod):
    """A fresh adapter per task whose ΔW is kept sparse."""

    name = "n-lora"
    summary = "a new LoRA adapter per task with an ℓ₁ penalty on ΔW (the paper's method)"
    paper = "arXiv:2410.10179, Eq. 4"
    Settings = NLoraSettings

    def first_stage(self) -> dict[str, Any]:
        """The settings of every LoRA method alone."""
        return self.lora_first_stage()
