"""SD-LoRA: the directions of earlier updates stay, their magnitudes are learned on.

"SD-LoRA: Scalable Decoupled Low-Rank Adaptation for Class Incremental Learning" (arXiv:2501.13198).
A new LoRA adapter per task; of every earlier one the direction is frozen and a scalar α_i, one for
all matrices, is trained with the task:

    W₀ + Σ_{i<t} α_i·ΔW_i + ΔW_t

The scalars carry on from task to task. The paper's two variants, which recompress or leave out late
directions, are not here.
"""

from __future__ import annotations

from nlora.methods.parts.lora import LoraMethod


class SdLora(LoraMethod):
    """A fresh adapter per task, and a trained scalar on each earlier one."""

    name = "sd-lora"
    summary = "a new LoRA adapter per task, and a trained magnitude for each earlier one"
    paper = "arXiv:2501.13198"
    scales_earlier = True
