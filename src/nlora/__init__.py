"""nlora: continual learning for language models with LoRA, without forgetting.

From Python: `run` and `learn` train a model directory, `load` holds one in memory, `Task` is a task
of a script's own rows; `analyze` and `penalty` need no directory. docs/python.md has them all.

>>> import nlora
>>> nlora.Task("mood", test=[("what a day", "good"), ("oh no", "bad")], labels=["good", "bad"])
Task('mood', 0 to train, 2 to test, labels good, bad)

Whatever is imported from here is loaded when it is first asked for. `docs/architecture.md` has the
rooms (subpackages) of the source.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nlora.errors import NloraError

if TYPE_CHECKING:
    from nlora.api.geometry import analyze, penalty
    from nlora.api.learning import learn
    from nlora.api.models import Model, load
    from nlora.api.own_script import ContinualLora
    from nlora.api.running import run
    from nlora.api.tasks import Task
    from nlora.continual.guard import SetAside

__version__ = "0.1.0"

_PLACES = {
    "ContinualLora": "nlora.api.own_script",
    "Model": "nlora.api.models",
    "SetAside": "nlora.continual.guard",
    "Task": "nlora.api.tasks",
    "analyze": "nlora.api.geometry",
    "learn": "nlora.api.learning",
    "load": "nlora.api.models",
    "penalty": "nlora.api.geometry",
    "run": "nlora.api.running",
}
"""Where each public name is; for type checkers it is imported above."""

__all__ = [
    "ContinualLora",
    "Model",
    "NloraError",
    "SetAside",
    "Task",
    "__version__",
    "analyze",
    "learn",
    "load",
    "penalty",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'nlora' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_PLACES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
