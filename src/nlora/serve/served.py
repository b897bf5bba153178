"""The model that is served: what it is called, what it answers, and what it has become."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nlora.errors import NloraError, first_line, unknown

if TYPE_CHECKING:
    from nlora.api.models import Model
    from nlora.continual.answering import Correct
    from nlora.evaluation.matching import Correction
    from nlora.progress import Progress


class Gone(Exception):
    """What is served is not held in memory, and the directory holds it no longer."""


class Served:
    """A model in memory under a name. `NAME:TASK` names one of its tasks."""

    def __init__(
        self, model: Model, name: str, progress: Progress, correct: Correct | None = None
    ) -> None:
        self.model = model
        self.name = name
        self.since = int(time.time())
        self._progress = progress
        self._correct = correct
        model.continual.hold()
        self.corrections = self._corrected()
        """How labels are matched, by task (`explain.answers.correct_by`)."""
        self._stale = False
        """Whether that is still to be found for the stages that are served."""
        self.trouble: str | None = None
        """Why the stages that the directory holds now are not served."""

    def _corrected(self) -> Mapping[str, Correction]:
        return self._correct(self.model.continual, self.tasks) if self._correct else {}

    def work(self, job: Any, items: list[Any]) -> list[Any]:
        """The results of the items of a job; in the model's thread.

        Raises Gone where an update that a method reads for it was taken away meanwhile.
        """
        model = self.model.continual
        try:
            return job(self, items)
        except NloraError:
            try:
                for record in model.records if model.reads_updates else ():
                    model.directory.verify(record)
            except NloraError as error:
                raise Gone(f"the directory holds other stages now: {error}") from None
            raise

    @property
    def tasks(self) -> list[str]:
        """The names of the learned tasks."""
        return self.model.tasks

    @property
    def names(self) -> list[str]:
        """What `model` of a request may be."""
        return [self.name, *(f"{self.name}:{task}" for task in self.tasks)]

    def task_of(self, model: str | None) -> str | None:
        """The task that a request's `model` names. Raises NloraError for an unknown name."""
        if model is None or model == self.name:
            return None
        if model not in self.names:
            raise unknown("model", model, self.names)
        return model.removeprefix(f"{self.name}:")

    def check_task(self, task: str | None) -> None:
        """Raise NloraError for a task that was not learned."""
        if task is not None and task not in self.tasks:
            raise unknown("task", task, self.tasks)

    def reload(self) -> None:
        """Take up what the directory holds now; in the model's thread, between two batches."""
        try:
            self._stale = self.model.reload() or self._stale
            if taken_up := self._stale:
                self.corrections = {}  # of other stages
                self.corrections = self._corrected()
                self._stale = False
        except Exception as error:  # whatever it is, what is in memory goes on being served
            if self.trouble is None:
                lacking = "answer without offsets" if self._stale else "are not served"
                self._progress.message(f"the new stages {lacking}: {error}")
            self.trouble = first_line(error)
            return
        self.trouble = None
        if taken_up:
            records: Sequence[Any] = self.model.continual.records
            last = records[-1].name if records else "the base model"
            self._progress.message(f"serving stage {len(records)}, '{last}', from now on")
