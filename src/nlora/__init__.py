"""nlora: continual learning for language models with LoRA, without forgetting.

The parts, from the top down: `nlora.cli` (the command line), `nlora.study` (many runs compared),
`nlora.report` (ledgers and tables), `nlora.analysis` (geometry), `nlora.training` (the loop),
`nlora.methods` (one file per continual-learning method), `nlora.carriers` (where an update lives),
`nlora.store` (the model directory), `nlora.evaluation`, `nlora.data`, `nlora.models`,
`nlora.lowrank` (the mathematics of factor pairs).
"""

from nlora.errors import NloraError

__version__ = "0.1.0"

__all__ = ["NloraError", "__version__"]
