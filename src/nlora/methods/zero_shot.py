"""Zero-shot: the model as it is. Nothing is trained.

The row beside which every table has to be read ("pre-trained model" in the paper's Figure 4).
`nlora run --evaluate next` and `nlora compare` measure it before they train; as a method of its own
it can be asked for with settings that no method of a grid has, such as another prompt.
"""

from collections.abc import Sequence

from pydantic import ConfigDict

from nlora.adapters.settings import Strict
from nlora.data.task import TaskData
from nlora.methods.base import Method


class NoSettings(Strict):
    """None: there is nothing to set where nothing is trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ZeroShot(Method):
    """No stage at all: the evaluation before training is all there is."""

    name = "zero-shot"
    summary = "the model as it is: nothing is trained"
    paper = "arXiv:2410.10179, Figure 4 (pre-trained model)"
    Settings = NoSettings

    def stages(self, stream: Sequence[TaskData]) -> list[tuple[str, tuple[TaskData, ...]]]:
        """None."""
        return []
