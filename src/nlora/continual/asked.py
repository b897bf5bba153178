"""The model in memory, asked: greedy answers, the most likely label, and how likely each is."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from nlora.adapters.base import Adapter
from nlora.continual.offsets import correction
from nlora.data.comparing import punctuated
from nlora.data.encode import Encoder
from nlora.data.task import Example
from nlora.evaluation.among import answers_and_log_likelihoods, log_likelihoods, reads_once
from nlora.evaluation.answers import Prediction, answer
from nlora.evaluation.metrics import OF_LABELS
from nlora.evaluation.states import answer_states
from nlora.evaluation.writing import Over, Tell, Writing, Written, write
from nlora.fast.logits import answer_logits
from nlora.plan.settings import RunSettings
from nlora.progress import Progress
from nlora.store.records import Offsets

T = TypeVar("T")


@dataclass
class Asked:
    """A model as it stands at the moment, with the settings by which it answers."""

    run: RunSettings
    adapter: Adapter
    encoder: Encoder
    mixed: bool
    """Whether it computes in bf16 with weights in fp32."""
    progress: Progress
    offsets: Callable[[], Mapping[str, Offsets]] = dict
    """Which corrections of labels' scores are in force now, by task."""
    _told: bool = field(default=False, init=False)

    def answers(self, examples: Sequence[Example]) -> list[Prediction]:
        """By greedy decoding."""
        return self._decoded(answer, examples)

    def tested(self, examples: Sequence[Example]) -> list[Prediction]:
        """The same, with the most likely label where the task has labels and the settings ask.

        Where a correction is in force the answer is the label of the highest corrected score.
        """
        task, labels = examples[0].task, examples[0].task.labels
        if labels is not None and task.name in self.offsets():
            return [
                _chosen(e, row) for e, row in zip(examples, self.corrected(examples), strict=True)
            ]
        if labels is None or not self._among_labels():
            return self.answers(examples)
        found = self._decoded(answers_and_log_likelihoods, examples)
        return [
            replace(said, likely=labels[scores.index(max(scores))], scores=scores)
            for said, scores in found
        ]

    def written(
        self,
        examples: Sequence[Example],
        how: Writing,
        tells: Sequence[Tell] = (),
        overs: Sequence[Over] = (),
    ) -> list[Written]:
        """What the model writes in answer to each example; of labels nothing is known here."""
        prompts = [ids for ids, _ in self.encoder.prompts(examples)]
        ends = {self.encoder.end(chat) for chat in {e.task.chat for e in examples}}
        return self.continued(prompts, how, ends, tells, overs)

    def continued(
        self,
        prompts: Sequence[list[int]],
        how: Writing,
        ends: Collection[int] = (),
        tells: Sequence[Tell] = (),
        overs: Sequence[Over] = (),
    ) -> list[Written]:
        """What the model writes after prompts of token ids, which may also end at one of `ends`.

        `tells` may have a listener per prompt, and `overs` who ends what follows it.
        """
        asked = self.adapter.model, self.encoder, prompts, how
        with self._autocast():
            return write(*asked, self.run.eval_tokens, ends, tells, overs)

    def scores(self, examples: Sequence[Example]) -> list[list[float]]:
        """ln p of each of the task's labels as the answer to each example."""
        with self._autocast():
            return log_likelihoods(
                self.adapter.model,
                self.encoder,
                examples,
                self.run.eval_tokens,
                self.progress.advance,
            )

    def corrected(self, examples: Sequence[Example]) -> list[list[float]]:
        """The same, with the correction that is in force for their task, if there is one."""
        scores, task = self.scores(examples), examples[0].task
        known = self.offsets().get(task.name)
        if known is None:
            return scores
        return correction(known, task.labels or ())(np.array(scores)).tolist()

    def states(self, examples: Sequence[Example]) -> list[Tensor]:
        """The hidden state from which the answer to each example is begun (`answer_states`)."""
        asked = self.adapter.model, self.encoder, examples
        with self._autocast():
            return list(answer_states(*asked, self.run.eval_tokens, self.progress.advance))

    @torch.inference_mode()
    def logits(self, batch: Mapping[str, Any]) -> Tensor:
        """At the answer tokens of a batch, (n, vocabulary)."""
        self.adapter.model.eval()
        with self._autocast():
            return answer_logits(self.adapter.model, batch).logits

    def _among_labels(self) -> bool:
        """Whether tests measure the most likely labels too, as the settings and the model say."""
        wanted = self.run.among_labels
        if wanted != "auto":
            return wanted
        affordable = reads_once(self.adapter.model)
        if not affordable and not self._told:
            self._told = True
            self.progress.message(
                "tests do not measure the most likely label, since this model would read each "
                "prompt as often as the task has labels; among_labels=true measures it"
            )
        return affordable

    def _decoded(self, ask: Callable[..., list[T]], examples: Sequence[Example]) -> list[T]:
        with self._autocast():
            return ask(
                self.adapter.model,
                self.encoder,
                examples,
                max_new_tokens=self.run.max_new_tokens,
                batch_tokens=self.run.eval_tokens,
                early_stop=all(e.task.metric in OF_LABELS for e in examples),
                advance=self.progress.advance,
            )

    def _autocast(self) -> AbstractContextManager[Any]:
        if not self.mixed:
            return nullcontext()
        return torch.autocast(self.adapter.model.device.type, dtype=torch.bfloat16)


def _chosen(example: Example, scores: Sequence[float]) -> Prediction:
    """The label of the highest score, as an answer."""
    labels = example.task.labels or ()
    best = labels[scores.index(max(scores))]
    return Prediction(best, example.label, example.text, best, punctuated(labels), labels)
