"""Continual learning in a training script of one's own: earlier updates, penalty and commit.

`ContinualLora` puts earlier updates into a Transformers model and a fresh adapter on top of them.
Whoever trains that, Transformers' Trainer, its subclasses or a plain loop, gets the penalties of
`n-lora` and `o-lora` once per optimiser step, as if they stood in the loss. `commit` makes what was
trained a stage of a model directory.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from nlora import endings
from nlora.adapters.given import given
from nlora.adapters.lora import Lora
from nlora.adapters.past import Beneath
from nlora.api.results import Results
from nlora.continual.bringing import Brought, bring
from nlora.continual.earlier import Earlier, earlier_updates, training_choice
from nlora.continual.guard import Guard, RepairMode
from nlora.data.encode import Encoder
from nlora.data.prompts import Prompter
from nlora.data.task import TaskData
from nlora.errors import NloraError
from nlora.progress import Progress
from nlora.training.penalised import Penalised
from nlora.training.shards import sharded

log = logging.getLogger("nlora")


class HasData(Protocol):
    """What holds a task's examples, as `nlora.Task` does."""

    @property
    def data(self) -> TaskData: ...


class ContinualLora(Penalised):
    """Earlier updates in force, frozen, and a fresh LoRA adapter on top that is penalised.

    `model` is a plain Transformers model, which is changed in place; train and save `self.model`.
    `previous` is a model directory, to go on as it stands, or PEFT's LoRA adapters (folders or Hub
    names), oldest first. `penalty` is a norm of the new update (`nlora methods n-lora`), "none" for
    none; `orthogonal` the weight of its overlap with the earlier ones (O-LoRA; True is 0.5).
    `weight` is "relative", where the penalty's gradient is `l1` (0.05) of the task's, measured over
    the first tenth of the steps, or the number λ that multiplies the norm. `settings` are those of
    `nlora methods n-lora` and `o-lora`: rank, alpha, dropout, target_modules, l1, …; by default
    those of the earlier updates.

    It is a callback for Trainer and its subclasses (`callbacks=[lora]`), also with accumulation,
    clipping, mixed precision, DDP and FSDP2. In a loop of one's own call `begin` once, and `step`
    in place of clipping and the optimiser's step. For DeepSpeed see `into_loss`.

    Raises NloraError for a setting or an earlier update that does not go together with the model.
    """

    def __init__(
        self,
        model: Any,
        previous: str | Path | Iterable[str | Path] = (),
        penalty: str = "l1",
        orthogonal: float | bool = 0.0,
        weight: float | str = "relative",
        **settings: Any,
    ) -> None:
        if hasattr(model, "peft_config"):
            raise NloraError(
                "the model has adapters already; give the plain model, and its adapters as previous"
            )
        self.base = model
        self.earlier: Earlier = earlier_updates(model, previous)
        self.choice = training_choice(self.earlier, penalty, orthogonal, weight, settings)
        run = self.choice.run
        adapter = Lora(
            model,
            run.rank,
            run.alpha,
            run.dropout,
            run.target_modules,
            history_rank=run.history_rank,
            start=run.start,
            past=Beneath,  # the weights stay what they are, whoever saves them
            **self.choice.method.adapter_options(),
        )
        self.earlier.put_into(adapter)
        adapter.begin()
        super().__init__(adapter, self.choice.method, run.optimizer)
        self.number = len(self.earlier) + 1
        self.loaded = False
        """Whether the update was trained elsewhere."""

    def rows(self, task: TaskData | HasData, tokenizer: Any) -> list[dict[str, list[int]]]:
        """The task's training examples as `input_ids` and `labels`, asked as its tests will be.

        Raises NloraError as `Encoder` does.
        """
        run, data = self.choice.run, _data(task)
        asks = Prompter(run.prompt, run.chat, tokenizer)
        reads = bool(self.base.config.is_encoder_decoder)
        encoder = Encoder(tokenizer, asks, reads, run.max_length, run.max_text_tokens)
        return [example.row(reads) for example in encoder.all(data.train)]

    # What becomes of it.

    def load(self, adapter: str | Path) -> None:
        """Let the update be that of a saved adapter, such as the Trainer's output folder.

        Raises NloraError where it is no plain LoRA of the same matrices, or of a larger rank, and
        where a start has taken a part of the base model's weights, which such a file lacks.
        """
        if self.adapter.origin:
            raise NloraError(
                f"{adapter} does not hold what start={self.choice.run.start} has taken from the "
                "base model's weights: commit the update in the process that trained it"
            )
        self.adapter.put(given(str(adapter)).factors(self.adapter.factors()))
        self.loaded = True

    @endings.together()
    def commit(
        self,
        out: str | Path,
        task: TaskData | HasData | None = None,
        name: str | None = None,
        max_forgetting: float | None = None,
        repair: RepairMode = "offer",
        tokenizer: Any = None,
        progress: Progress | None = None,
    ) -> Results:
        """Make what was trained a stage of a model directory; its results, as of `nlora.learn`.

        The directory is the one in `previous`, or a new one, in which earlier adapters are stages
        of their own. `task` (a `TaskData`, or what has one as `data`) brings the tests by which
        this and later stages are measured, and the training examples, where the directory's method
        looks at them (a router); without one the stage is called `name` and counts in no metric.
        The base model must be what `model.name_or_path` says, since `nlora` loads it from there.
        With `max_forgetting`, which needs a task, the stage stands only if no earlier one loses
        more points, as with `nlora learn`. Afterwards a fresh adapter is on top of it; where this
        raises, what was trained is still in hand.

        Raises NloraError if the directory holds something else or a stage that was set aside,
        SetAside where the guard refuses.
        """
        if sharded(self.adapter):
            raise NloraError(
                "the adapter is sharded over processes: save it (`trainer.save_model`), and commit "
                "it from one process after `ContinualLora.load`"
            )
        brought = Brought(
            self.base,
            self.adapter,
            self.earlier,
            self.choice,
            {"steps": len(self.losses), **self.measured},
            self.losses,
        )
        if not (self.applied or self.loaded) and self.choice.method.own_weight():
            log.warning(
                "no step was counted, so the penalty was never in force: call `begin` and `step` "
                "in a loop of your own, or give this object to the Trainer as a callback"
            )
        data = None if task is None else _data(task)
        guard = None if max_forgetting is None else Guard(max_forgetting, repair)
        with self.adapter.kept_on_failure():
            found = bring(brought, Path(out), data, name, guard, tokenizer, progress)
        self.earlier = earlier_updates(self.base, out)
        self.number = len(self.earlier) + 1
        self.adapter.begin()
        self._gradients, self.losses, self._as_term, self.loaded = None, [], False, False
        return Results(found)


def _data(task: TaskData | HasData) -> TaskData:
    return task if isinstance(task, TaskData) else task.data
