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

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nlora.errors import NloraError

if TYPE_CHECKING:
    from nlora.continual.own_script import ContinualLora

__version__ = "0.1.0"

_PLACES = {"ContinualLora": "nlora.continual.own_script"}
"""Where each public name is; for type checkers it is imported above."""

__all__ = ["ContinualLora", "NloraError", "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'nlora' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_PLACES[name]), name)
    return found
