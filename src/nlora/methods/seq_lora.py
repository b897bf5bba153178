"""SeqLoRA: one LoRA adapter that is trained on task after task.

The baseline of the paper's Table 1 that keeps nothing of the earlier tasks on purpose.
"""

from nlora.methods.base import Learner, Stage
from nlora.methods.sparsity import LoraMethod


class SeqLora(LoraMethod):
    """One adapter, continued from task to task."""

    name = "seq-lora"
    summary = "one LoRA adapter, continued from task to task"
    paper = "arXiv:2410.10179, Table 1 (SeqLoRA)"

    def begin(self, learner: Learner, stage: Stage) -> None:
        """Go on with the adapter of the task before."""
        learner.carrier.begin(continued=True, keep_previous=self.needs_previous)
