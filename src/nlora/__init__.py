"""nlora: continual learning for language models with LoRA, without forgetting.

The parts, from the top down: `nlora.cli` (the command line), `nlora.study` (many runs compared),
`nlora.continual` (the model in memory), `nlora.report` (ledgers and tables), `nlora.analysis`
(geometry), `nlora.training` (the loop of one stage), `nlora.plan` (a configuration resolved),
`nlora.methods` (one file per continual-learning method), `nlora.adapters` (where an update lives),
`nlora.evaluation`, `nlora.store` (the model directory), `nlora.fast` (cheap forward passes),
`nlora.merging` (what updates make together), `nlora.backbones` (base models), `nlora.data`,
`nlora.recipes` and `nlora.lowrank` (the mathematics of factor pairs). `docs/architecture.md` has
the picture.
"""

from nlora.errors import NloraError

__version__ = "0.1.0"

__all__ = ["NloraError", "__version__"]
