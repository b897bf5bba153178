"""IncLoRA: a new LoRA adapter for each task, on top of all earlier ones, which are frozen.

The baseline of the paper's Table 1, and what N-LoRA and O-LoRA add a penalty to: all hooks keep
their defaults.
"""

from nlora.methods.sparsity import LoraMethod


class IncLora(LoraMethod):
    """A fresh adapter per task; earlier updates stay in force."""

    name = "inc-lora"
    summary = "a new LoRA adapter per task on top of the earlier ones"
    paper = "arXiv:2410.10179, Table 1 (IncLoRA)"
