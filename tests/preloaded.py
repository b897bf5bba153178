"""Everything that a forked process may need, out of the sight of its garbage collector."""

import gc
from importlib import import_module

from transformers import LlamaForCausalLM, T5ForConditionalGeneration  # noqa: F401

for name in ("tests.training.command", "nlora.study.worker", "nlora.cli.run"):
    import_module(name)
gc.collect()
gc.freeze()
