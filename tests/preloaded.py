"""Everything that a forked process may need, out of the sight of its garbage collector."""

import gc
from importlib import import_module

from transformers import LlamaForCausalLM, T5ForConditionalGeneration  # noqa: F401

NAMES = (
    "tests.training.command",
    "nlora.study.worker",
    "nlora.cli.run",
    "nlora.adapters.lora",
    "nlora.training.loop",
    "omegaconf",
)
for name in NAMES:
    import_module(name)
gc.collect()
gc.freeze()
