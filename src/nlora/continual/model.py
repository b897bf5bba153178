"""A model that keeps learning: one class for `run`, `learn`, `predict`, `export` and studies."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nlora.adapters.base import Adapter
from nlora.backbones.load import Backbone
from nlora.continual.agreement import stored_plan
from nlora.continual.asked import Asked
from nlora.continual.building import (
    load_base,
    make_adapter,
    make_encoder,
    stored_targets,
    weights_dtype,
)
from nlora.continual.offsets import in_force
from nlora.continual.routing import Routing
from nlora.continual.tasks import answerable_tasks, last_learned
from nlora.data.comparing import punctuated, to_tell_apart
from nlora.data.messages import conversation
from nlora.data.task import Example, Task, TaskData
from nlora.errors import NloraError
from nlora.evaluation.answers import Prediction
from nlora.fast.attention import use_plain_attention
from nlora.fast.dropout import use_quick_dropout
from nlora.methods.context import Context, Stage
from nlora.plan.resolve import Plan
from nlora.plan.resolve import trained as trained_of
from nlora.progress import NoProgress, Progress, shown
from nlora.store.directory import ModelDirectory, StageRecord
from nlora.store.state import read_state

Answers = dict[str, list[Prediction]]
"""The answers to each task's test examples, by its name."""


class ContinualModel:
    """A base model with an adapter and a method, and the directory that keeps what it learns.

    `open` gives the model of a directory as its last stage left it; `begin` the one of a plan.
    `adapter` is one that is in the backbone already.
    """

    def __init__(
        self,
        plan: Plan,
        directory: ModelDirectory,
        backbone: Backbone,
        progress: Progress | None = None,
        adapter: Adapter | None = None,
    ) -> None:
        self.plan = plan
        self.method = plan.method
        self.directory = directory
        self.backbone = backbone
        self.progress = progress or NoProgress()
        self.stream: Sequence[TaskData] = plan.stream
        """What each stage of the run learns, learned or yet to be (a task that is learned again
        comes again), and the tasks that are only tested."""
        self.encoder = make_encoder(plan, backbone)
        if plan.run.attention == "auto":
            use_plain_attention(backbone.model)
        use_quick_dropout(backbone.model)
        self.adapter: Adapter = adapter or make_adapter(plan, backbone, stored_targets(directory))
        self.mixed = plan.run.precision == "bf16" and weights_dtype(plan) == torch.float32
        self.records = directory.stages()
        self._in_hand = 0
        """The stage that the adapter stands after, or trains on top of."""
        self._trains = False
        """Whether it does the second, so that it may be that stage's no more."""
        self.holds = self._held = False
        """Whether updates are to be held in memory, and whether they are."""
        self._known_states: dict[int | None, dict[Any, Tensor]] = {}
        self.asked = Asked(
            plan.run,
            self.adapter,
            self.encoder,
            self.mixed,
            self.progress,
            lambda: in_force(self.records[: self._in_hand]),
        )
        self.routing = Routing(self)

    @classmethod
    def begin(
        cls,
        plan: Plan,
        directory: ModelDirectory,
        progress: Progress | None = None,
        fp32: bool = False,
    ) -> "ContinualModel":
        """Load the plan's base model, and bring it to where the last committed stage left it.

        With `fp32` all of it is in fp32, whatever it was trained in. Raises NloraError if it cannot
        be loaded.
        """
        progress = progress or NoProgress()
        progress.message(f"loading {plan.config.model}")
        plan, backbone = load_base(plan, directory, fp32)
        model = cls(plan, directory, backbone, progress)
        model.restore()
        return model

    def planned(self, plan: Plan, progress: Progress) -> "ContinualModel":
        """The model of another plan of the directory as its last stage left it.

        It has the base model and the adapter of this one, which is of no use then. Raises
        NloraError if a stage cannot be read.
        """
        model = ContinualModel(plan, self.directory, self.backbone, progress, self.adapter)
        model.holds = self.holds
        model.restore()
        return model

    @classmethod
    def open(cls, path: Path, progress: Progress | None = None) -> "ContinualModel":
        """The model of a directory, as its last stage left it; its stream is what it has learned.

        Raises NloraError as `stored_plan` does.
        """
        directory = ModelDirectory(path)
        return cls.begin(stored_plan(directory), directory, progress)

    def restore(self, stage: int | None = None) -> None:
        """Bring the model to where a committed stage left it, the last by default; 0: the base."""
        records = self.directory.stages()[:stage]
        paths, state = self.directory.update_paths(stage, records), self.state_after(records)
        if self.holds:
            self._hold(records)
        self.adapter.load(paths)
        self.records, self._in_hand, self.method.state = records, len(records), state
        self._trains = False

    def hold(self) -> None:
        """Hold in memory what any stage is answered by, until `restore` reads what is there then.

        Whatever becomes of the directory meanwhile, the model answers. An adapter that trains whole
        models holds none of them.
        """
        self.holds = True
        self._hold(self.records)

    @property
    def reads_updates(self) -> bool:
        """Whether answers need the directory's updates: tasks have models that nothing holds."""
        return self._model_per_task and not self._held

    @property
    def _model_per_task(self) -> bool:
        return self.method.needs_task_id or self.method.routes_by_input

    def _hold(self, records: Sequence[StageRecord]) -> None:
        if not self._model_per_task:
            return
        for record in records:
            self.directory.verify(record)
        names = {name for record in records for name in record.manifest.adds}
        self._held = self.adapter.hold([self.directory.update_path(name) for name in sorted(names)])

    def refresh(self) -> None:
        """Be what the directory holds by now: other stages, perhaps of other tasks."""
        stream = answerable_tasks(self.directory)
        self.restore()
        self.stream, self.plan = stream, self.plan.with_stream(stream)

    def state_after(self, records: Sequence[StageRecord]) -> Any:
        """What the method remembered after these stages."""
        folder = self.directory.stage_path(records[-1]) / "state" if records else None
        kind = self.method.State
        return read_state(folder, kind) if folder is not None and folder.is_dir() else kind()

    def context(self, stage: Stage | None = None) -> Context:
        """What a hook of the method is given, in a stage or outside of any."""
        last = len(self.records)
        return Context(
            stage=stage or Stage(last, self.records[-1].name if last else "", (), seed=0),
            adapter=self.adapter,
            encoder=self.encoder,
            stream=trained_of(self.stream),
            after=self.after,
            stage_of=self.stage_of,
            progress=self.progress,
            known_states=self._known_states,
        )

    def stage_of(self, task: str) -> int | None:
        """The number of the stage in which a task was last learned, or None (`last_learned`)."""
        found = last_learned(self.records, task)
        return None if found is None else found.index

    def base_of(self, stage: Stage) -> StageRecord | None:
        """The stage whose model a new one is trained on top of; None for the base model.

        That is the last one; where every task has a model of its own, that of the task.
        """
        if stage.again and self._model_per_task:
            known = last_learned(self.records, stage.tasks[0].name)
            if known is not None:
                return known
        return self.records[-1] if self.records else None

    def begin_after(self, stage: Stage) -> StageRecord | None:
        """Bring the adapter to where a new stage begins: its record, or None for the base model."""
        begins = self.base_of(stage)
        if begins is not None and begins.index != self._in_hand:
            self.adapter.load(self.directory.update_paths(begins.index, self.records))
            self._in_hand = begins.index
        self._trains = True
        return begins

    def stand_after(self, record: StageRecord) -> None:
        """Be the model after a stage whose update is in hand; it is committed later."""
        self.records.append(record)
        self._in_hand, self._trains = record.index, False

    def own_stage(self, task: str) -> int | None:
        """The stage whose model answers a task that is named; none where that was not accepted."""
        found = last_learned(self.records, task)
        return None if found is None or "rejected" in found.notes else found.index

    @contextmanager
    def after(self, stage: int) -> Iterator[None]:
        """The model as it was after a stage; the base model after stage 0."""
        if self._in_hand == stage and stage > 0 and not self._trains:
            yield
            return
        held = self._in_hand, self._trains
        paths = self.directory.update_paths(stage, self.records, verified=not self._held)
        with self.adapter.after(paths):
            self._in_hand, self._trains = stage, False
            try:
                yield
            finally:
                self._in_hand, self._trains = held

    @contextmanager
    def standing(self, stage: int) -> Iterator[None]:
        """All as it was after a stage, before any for 0: the model, and what routes and remembers.

        Unlike in `after`, tasks that were learned later are unknown, and what was taken out since
        is in.
        """
        records, state, known = self.records, self.method.state, self.records[:stage]
        try:
            self.records, self.method.state = known, self.state_after(known)
            with self.after(stage):
                yield
        finally:
            self.records, self.method.state = records, state

    @contextmanager
    def over(self, stream: Sequence[TaskData]) -> Iterator[None]:
        """The same model, its stream these tasks."""
        kept, self.stream = self.stream, stream
        try:
            yield
        finally:
            self.stream = kept

    @contextmanager
    def without(self, stage: int) -> Iterator[None]:
        """The model without the update of a stage, and with all others.

        Raises NloraError if the model holds no such update by itself.
        """
        own = [self.directory.update_path(r.folder) for r in self.records if r.index == stage]
        paths = self.directory.update_paths(known=self.records)
        if not own or own[0] not in paths:
            raise NloraError(f"{self.directory.path} holds no update of stage {stage} by itself")
        with self.adapter.after([path for path in paths if path != own[0]]):
            yield

    def take_up(self, record: StageRecord, tested: Sequence[TaskData]) -> Answers:
        """Be the model of a record that brings no update, and be tested; the record has the scores.

        The record is not committed; until it is, `restore` goes back.
        """
        self.stand_after(record)
        self.adapter.load(self.directory.update_paths(known=self.records))
        answers = self.evaluate(tested)
        record.accuracy = self.measured(answers)
        self.routing.tell(record)
        return answers

    def measured(self, answers: Mapping[str, Sequence[Prediction]]) -> dict[str, float]:
        """The accuracy, or what the method measures in its place, by task."""
        tasks = {data.name: data.task for data in self.stream}
        return {name: self.method.metric(tasks[name])(rows) for name, rows in answers.items()}

    def evaluate(self, tasks: Sequence[TaskData], named: bool = False) -> Answers:
        """The model's answers to the test examples of each task, by greedy decoding.

        Of a task with labels they have the most likely one too, if the settings say so. With
        `named` a method that chooses a stage by the input is told the task's.
        """
        answers = {}
        self.routing.taken.clear()
        with shown(self.progress, "evaluation", sum(len(data.test) for data in tasks)):
            routes = [None for _ in tasks] if named else self.routing.of(tasks)
            for data, own in zip(tasks, routes, strict=True):
                stage = self.own_stage(data.name) if named else None
                found = self.routing.ask(data.test, data.name, stage, self.asked.tested, own)
                counts = punctuated(to_tell_apart(data.task, data.test))
                answers[data.name] = [replace(p, punctuated=counts) for p in found]
        return answers

    def answer(
        self, examples: Sequence[Example], task: str, stage: int | None = None
    ) -> list[Prediction]:
        """Answers to examples of a task, by greedy decoding, by the model that `Routing` finds.

        `stage` is the one that all are known to belong to, if there is more than one model.
        """
        return self.routing.ask(examples, task, stage, self.asked.answers)

    def scores(
        self, examples: Sequence[Example], task: str, stage: int | None = None
    ) -> list[list[float]]:
        """ln p of each of the task's labels as the answer to each example; routed as `answer`."""
        return self.routing.ask(examples, task, stage, self.asked.scores)

    def corrected(
        self, examples: Sequence[Example], task: str, stage: int | None = None
    ) -> list[list[float]]:
        """The same with the corrections that stages have put in force (`continual.offsets`)."""
        return self.routing.ask(examples, task, stage, self.asked.corrected)

    def states(
        self, examples: Sequence[Example], task: str, stage: int | None = None
    ) -> list[Tensor]:
        """The hidden state (d,) from which the answer to each example is begun; as `answer`."""
        return self.routing.ask(examples, task, stage, self.asked.states)

    def bare(self, texts: Sequence[str]) -> list[Prediction]:
        """The base model's answers to texts, without any task's question."""
        with self.after(0):
            return self.asked.answers([bare(text) for text in texts])


def bare(text: str) -> Example:
    """A text as it is asked without any task's question."""
    return Example(Task("", chat=conversation(text) is not None), text, "")
