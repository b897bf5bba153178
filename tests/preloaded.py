"""Everything that a forked process may need, out of the sight of its garbage collector."""

import gc
import os
from importlib import import_module

from transformers import LlamaForCausalLM, T5ForConditionalGeneration  # noqa: F401
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

from tests import lacking

NAMES = (
    "tests.training.command",
    "nlora.study.worker",
    "nlora.cli.run",
    "nlora.api.running",
    "nlora.api.results",
    "nlora.report.shown",
    "nlora.data.tokens",
    "nlora.lowrank.penalties",
    "nlora.methods.parts.answers",
    "nlora.methods.parts.depth",
    "nlora.methods.parts.until",
    "nlora.adapters.lora",
    "nlora.training.loop",
    "nlora.continual.learning",
    "nlora.continual.preview",
    "nlora.continual.taking_over",
    "nlora.continual.stages",
    "nlora.continual.commit",
    "nlora.evaluation.greedy",
    "nlora.training.determinism",
    "torch.distributed.algorithms.ddp_comm_hooks",
    "torch.distributed.run",
    "peft.utils.transformers_weight_conversion",
    "rich.table",
    "omegaconf",
)
for name in NAMES:
    import_module(name)
lacking.remember()
get_checkpoint_conversion_mapping("llama")  # made when the first model is loaded, in 0.2 s
os.fsync = lambda handle: None  # only a power cut needs it, and no test has one
gc.set_threshold(100_000, 20, 100)
gc.collect()
gc.freeze()
