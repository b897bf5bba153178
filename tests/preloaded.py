"""Everything that a forked process may need, out of the sight of its garbage collector."""

import gc
from importlib import import_module

from transformers import LlamaForCausalLM, T5ForConditionalGeneration  # noqa: F401
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

NAMES = (
    "tests.training.command",
    "nlora.study.worker",
    "nlora.cli.run",
    "nlora.adapters.lora",
    "nlora.training.loop",
    "nlora.continual.learning",
    "nlora.continual.stages",
    "nlora.continual.commit",
    "nlora.evaluation.greedy",
    "nlora.training.determinism",
    "torch.distributed.algorithms.ddp_comm_hooks",
    "torch.distributed.run",
    "rich.table",
    "omegaconf",
)
for name in NAMES:
    import_module(name)
get_checkpoint_conversion_mapping("llama")  # made when the first model is loaded, in 0.2 s
gc.collect()
gc.freeze()
