"""A model that keeps learning: one class for `run`, `learn`, `predict`, `export` and studies."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from nlora import processes
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
from nlora.continual.commit import commit, record_of
from nlora.continual.movement import moved
from nlora.data.comparing import punctuated, to_tell_apart
from nlora.data.messages import conversation
from nlora.data.task import Example, Task, TaskData
from nlora.errors import NloraError
from nlora.evaluation.answers import Prediction
from nlora.fast.attention import use_plain_attention
from nlora.methods.base import Route
from nlora.methods.context import Context, Stage
from nlora.plan.budgets import budget
from nlora.plan.resolve import Plan
from nlora.plan.resolve import trained as trained_of
from nlora.progress import NoProgress, Progress, shown
from nlora.store.directory import ModelDirectory, StageRecord
from nlora.store.state import read_state

T = TypeVar("T")

Answers = dict[str, list[Prediction]]
"""The answers to each task's test examples, by its name."""


class ContinualModel:
    """A base model with an adapter and a method, and the directory that keeps what it learns.

    `open` gives the model of a directory as its last stage left it; `begin` the one of a plan.
    """

    def __init__(
        self,
        plan: Plan,
        directory: ModelDirectory,
        backbone: Backbone,
        progress: Progress | None = None,
    ) -> None:
        self.plan = plan
        self.method = plan.method
        self.directory = directory
        self.backbone = backbone
        self.progress = progress or NoProgress()
        self.stream: Sequence[TaskData] = plan.stream
        """Every task of the run, learned or yet to be."""
        self.encoder = make_encoder(plan, backbone)
        use_plain_attention(backbone.model)
        self.adapter: Adapter = make_adapter(plan, backbone, stored_targets(directory))
        self.mixed = plan.run.precision == "bf16" and weights_dtype(plan) == torch.float32
        self.records = directory.stages()
        self._known_states: dict[Any, Tensor] = {}
        self.asked = Asked(plan.run, self.adapter, self.encoder, self.mixed, self.progress)
        self._routes_taken: dict[str, list[Route]] = {}
        """Of the last evaluation, by task, where the method routes."""

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

    @classmethod
    def open(cls, path: Path, progress: Progress | None = None) -> "ContinualModel":
        """The model of a directory, as its last stage left it; its stream is what it has learned.

        Raises NloraError as `stored_plan` does.
        """
        directory = ModelDirectory(path)
        return cls.begin(stored_plan(directory), directory, progress)

    def restore(self) -> None:
        """Bring the model to where the last committed stage left it."""
        self.records = self.directory.stages()
        self.adapter.load(self.directory.update_paths())
        self.method.state = self._state_after(self.records)

    def _state_after(self, records: Sequence[StageRecord]) -> Any:
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
        """The stage in which a task was learned, or None."""
        for record in self.records:
            if any(known["name"] == task for known in record.tasks):
                return record.index
        return None

    @contextmanager
    def after(self, stage: int) -> Iterator[None]:
        """The model as it was after a stage; the base model after stage 0."""
        if self.records and self.records[-1].index == stage:
            yield
            return
        with self.adapter.after(self.directory.update_paths(stage, self.records)):
            yield

    @contextmanager
    def without(self, stage: int) -> Iterator[None]:
        """The model without the update of a stage, and with all others.

        Raises NloraError if the model holds no such update by itself.
        """
        names = [record.folder for record in self.records if record.index == stage]
        manifest = self.records[-1].updates if self.records else []
        if not names or names[0] not in manifest:
            raise NloraError(f"{self.directory.path} holds no update of stage {stage} by itself")
        paths = self.directory.update_paths()
        left = [p for p, n in zip(paths, manifest, strict=True) if n != names[0]]
        with self.adapter.after(left):
            yield

    def learn(self, stage: Stage, tested: Sequence[TaskData]) -> StageRecord:
        """Train a stage, test `tested`, and commit it, if the method accepts what it has become."""
        from nlora.training.loop import train

        started = time.perf_counter()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        before = dict(self.records[-1].accuracy) if self.records else {}
        ctx = self.context(stage)
        trained = train(self.method, ctx, self.plan.run, self.mixed, self.directory.path / "logs")
        done = time.perf_counter()
        earlier = self.records[-1].updates if self.records else []
        record = record_of(
            stage,
            budget=budget(self.plan, stage),
            examples=trained.examples,
            steps=trained.steps,
            trainable_parameters=trained.trainable,
            notes=trained.notes,
        )
        record.updates = [*(earlier[:-1] if self.adapter.replaces else earlier), record.folder]
        self.records.append(record)
        record.seconds = {"training": done - started}
        if self.plan.run.measure_kl:
            known = [d for d in tested if d.only_tested or self.stage_of(d.name) is not None]
            record.kl = moved(self, stage.index, known)
            measured = time.perf_counter()
            record.seconds["kl"], done = measured - done, measured
        answers = self.evaluate(tested)
        record.accuracy = self.measured(answers)
        self._tell_routes(record)
        accepted = self.method.accept(ctx, before, record.accuracy)
        if not accepted:
            answers = self._reject(record, earlier, tested)
        record.seconds["evaluation"] = time.perf_counter() - done
        commit(self, record, answers, trained.losses, stage.tasks)
        if not accepted:
            self.restore()
        return record

    def _reject(
        self, record: StageRecord, earlier: list[str], tested: Sequence[TaskData]
    ) -> Answers:
        """Let the record and the method's state be what they were before; that model's answers.

        The update stays in the stage's folder, and no manifest names it.
        """
        moved_by = {"kl": record.kl} if record.kl else {}
        record.notes["rejected"] = {"accuracy": record.accuracy, **moved_by}
        record.kl = {}
        record.updates = earlier
        self.method.state = self._state_after(self.records[:-1])
        with self.adapter.after([self.directory.update_path(name) for name in earlier]):
            answers = self.evaluate(tested)
        record.accuracy = self.measured(answers)
        return answers

    def zero_shot(self, tasks: Sequence[TaskData]) -> None:
        """Test tasks before any training, and commit that."""
        started = time.perf_counter()
        answers = self.evaluate(tasks)
        record = StageRecord(index=0, name="zero-shot", seed=self.plan.config.seed)
        record.tasks = [data.task.to_json() for data in self.stream if data.only_tested]
        record.accuracy = self.measured(answers)
        record.seconds = {"evaluation": time.perf_counter() - started}
        commit(self, record, answers, [], None)

    def measured(self, answers: Answers) -> dict[str, float]:
        """The accuracy, or what the method measures in its place, by task."""
        tasks = {data.name: data.task for data in self.stream}
        return {name: self.method.metric(tasks[name])(rows) for name, rows in answers.items()}

    def evaluate(self, tasks: Sequence[TaskData]) -> Answers:
        """The model's answers to the test examples of each task, by greedy decoding.

        Of a task with labels they have the most likely one too, if the settings say so.
        """
        answers = {}
        self._routes_taken.clear()
        with shown(self.progress, "evaluation", sum(len(data.test) for data in tasks)):
            for data in tasks:
                found = self._routed(data.test, data.name, None, self.asked.tested)
                counts = punctuated(to_tell_apart(data.task, data.test))
                answers[data.name] = [replace(p, punctuated=counts) for p in found]
        return answers

    def answer(
        self, examples: Sequence[Example], task: str, stage: int | None = None
    ) -> list[Prediction]:
        """Answers to examples of a task, by greedy decoding, as the method predicts.

        With the model of the task's stage if the method needs to know it, with that of the stage
        that each example is routed to, or with the one model. `stage` is the one that all are known
        to belong to, if there is more than one model.
        """
        return self._routed(examples, task, stage, self.asked.answers)

    def scores(
        self, examples: Sequence[Example], task: str, stage: int | None = None
    ) -> list[list[float]]:
        """ln p of each of the task's labels as the answer to each example; routed as `answer`."""
        return self._routed(examples, task, stage, self.asked.scores)

    def _routed(
        self,
        examples: Sequence[Example],
        task: str,
        stage: int | None,
        ask: Callable[[Sequence[Example]], list[T]],
    ) -> list[T]:
        """What `ask` says to the examples, each asked of the model that answers it."""
        learned = self.stage_of(task)
        ctx = self.context()
        if self.method.needs_task_id and learned is not None:
            stages: list[int] | None = [learned] * len(examples)
        elif stage is not None and self.method.routes_by_input:
            stages = [stage] * len(examples)
        else:
            routes = processes.from_main(self.method.routes(ctx, examples))
            stages = None if routes is None else [route.stage for route in routes]
            if routes:
                self._routes_taken[task] = routes
        if stages is None:
            return ask(examples)
        found: dict[int, T] = {}
        for one in sorted(set(stages)):
            rows = [i for i, route in enumerate(stages) if route == one]
            with self.method.at(ctx, one):
                found.update(zip(rows, ask([examples[i] for i in rows]), strict=True))
        return [found[i] for i in range(len(examples))]

    def bare(self, texts: Sequence[str]) -> list[Prediction]:
        """The base model's answers to texts, without any task's question."""
        with self.after(0):
            return self.asked.answers([Example(_no_task(text), text, "") for text in texts])

    def _tell_routes(self, record: StageRecord) -> None:
        """Record which stages the tests of each task were answered by, and how many were far."""
        if not self._routes_taken:
            return
        names = {known.index: known.name for known in self.records}
        told = record.notes.setdefault("routing", {})
        told["tests"] = {
            task: dict(Counter(names[route.stage] for route in routes))
            for task, routes in self._routes_taken.items()
        }
        told["far"] = {
            task: sum(route.unknown for route in routes) / len(routes)
            for task, routes in self._routes_taken.items()
        }
        for line in told.get("unclear", []):
            self.progress.message(line)


def _no_task(text: str) -> Task:
    return Task("", chat=conversation(text) is not None)
