"""A model that keeps learning: one class for `run`, `learn`, `predict`, `export` and studies."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from nlora import processes
from nlora.adapters.base import Adapter
from nlora.adapters.registry import adapter
from nlora.backbones.load import Backbone, embedding_rows, load
from nlora.continual.agreement import numbers_of, stored_plan
from nlora.continual.commit import commit
from nlora.data.encode import Encoder
from nlora.data.messages import conversation
from nlora.data.prompts import Prompter
from nlora.data.task import Example, Task, TaskData
from nlora.errors import NloraError
from nlora.evaluation.among import answers_and_log_likelihoods, log_likelihoods, reads_once
from nlora.evaluation.answers import Prediction, answer
from nlora.evaluation.metrics import OF_LABELS
from nlora.fast.attention import use_plain_attention
from nlora.methods.base import Route
from nlora.methods.context import Context, Stage
from nlora.plan.resolve import Plan
from nlora.plan.resolve import trained as trained_of
from nlora.progress import NoProgress, Progress, shown
from nlora.store.directory import ModelDirectory, StageRecord, stage_folder
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
        self._told_among = False
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
        quantization = plan.run.quantization
        if quantization != "none":
            check_frozen(plan, quantization)
        if fp32 and quantization != "none":
            backbone = load(plan.base, torch.float32)
        else:
            backbone = load(plan.base, weights_dtype(plan), quantization=quantization)
        if fp32 and backbone.quantized is not None:
            raise NloraError(
                f"the base model is stored quantised ({backbone.quantized}), and the updates "
                "cannot be merged into such weights; use it with its adapters, which are PEFT's: "
                f"{directory.path}/stages/*/update"
            )
        if fp32:
            # After loading: the base that was trained on may have been rounded to bf16.
            backbone.model.float()
            in_fp32 = plan.run.model_copy(update={"precision": "fp32", "quantization": "none"})
            plan = replace(plan, run=in_fp32)
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
        trained = train(
            self.method,
            ctx,
            self.plan.run,
            self.mixed,
            self.directory.path / "logs",
            self.directory.checkpoints(stage_folder(stage.index, stage.name)),
            numbers_of(self.plan, self.records),
        )
        done = time.perf_counter()
        earlier = self.records[-1].updates if self.records else []
        record = StageRecord(
            index=stage.index,
            name=stage.name,
            tasks=[data.task.to_json() for data in stage.tasks],
            fingerprints={data.name: data.fingerprint() for data in stage.tasks},
            seed=stage.seed,
            examples=trained.examples,
            steps=trained.steps,
            trainable_parameters=sum(p.numel() for p in self.adapter.trained().values()),
            notes=trained.notes,
        )
        record.updates = [*(earlier[:-1] if self.adapter.replaces else earlier), record.folder]
        self.records.append(record)
        answers = self.evaluate(tested)
        record.accuracy = self.measured(answers)
        self._tell_routes(record)
        record.seconds = {"training": trained.earlier_seconds + done - started}
        accepted = self.method.accept(ctx, before, record.accuracy)
        if not accepted:
            answers = self._reject(record, earlier, tested)
        record.seconds["evaluation"] = time.perf_counter() - done
        commit(self, record, answers, trained.losses, stage.tasks)
        processes.on_main(self.directory.drop_checkpoints)
        if not accepted:
            self.restore()
        return record

    def _reject(
        self, record: StageRecord, earlier: list[str], tested: Sequence[TaskData]
    ) -> Answers:
        """Let the record and the method's state be what they were before; that model's answers.

        The update stays in the stage's folder, and no manifest names it.
        """
        record.notes["rejected"] = {"accuracy": record.accuracy}
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
                answers[data.name] = self._routed(data.test, data.name, None, self._tested)
        return answers

    def answer(
        self, examples: Sequence[Example], task: str, stage: int | None = None
    ) -> list[Prediction]:
        """Answers to examples of a task, by greedy decoding, as the method predicts.

        With the model of the task's stage if the method needs to know it, with that of the stage
        that each example is routed to, or with the one model. `stage` is the one that all are known
        to belong to, if there is more than one model.
        """
        return self._routed(examples, task, stage, self._answer)

    def scores(
        self, examples: Sequence[Example], task: str, stage: int | None = None
    ) -> list[list[float]]:
        """ln p of each of the task's labels as the answer to each example; routed as `answer`."""
        return self._routed(examples, task, stage, self._scores)

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
            return self._answer([Example(_no_task(text), text, "") for text in texts])

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

    def _tested(self, examples: Sequence[Example]) -> list[Prediction]:
        labels = examples[0].task.labels
        if labels is None or not self._among_labels():
            return self._answer(examples)
        found = self._decoded(answers_and_log_likelihoods, examples)
        return [replace(said, likely=labels[likely.index(max(likely))]) for said, likely in found]

    def _among_labels(self) -> bool:
        """Whether tests measure the most likely labels too, as the settings and the model say."""
        wanted = self.plan.run.among_labels
        if wanted != "auto":
            return wanted
        affordable = reads_once(self.adapter.model)
        if not affordable and not self._told_among:
            self._told_among = True
            self.progress.message(
                "tests do not measure the most likely label, since this model would read each "
                "prompt as often as the task has labels; among_labels=true measures it"
            )
        return affordable

    def _answer(self, examples: Sequence[Example]) -> list[Prediction]:
        return self._decoded(answer, examples)

    def _decoded(self, ask: Callable[..., list[T]], examples: Sequence[Example]) -> list[T]:
        run = self.plan.run
        with self._autocast():
            return ask(
                self.adapter.model,
                self.encoder,
                examples,
                max_new_tokens=run.max_new_tokens,
                batch_tokens=run.eval_tokens,
                early_stop=all(e.task.metric in OF_LABELS for e in examples),
                advance=self.progress.advance,
            )

    def _scores(self, examples: Sequence[Example]) -> list[list[float]]:
        model, tokens = self.adapter.model, self.plan.run.eval_tokens
        with self._autocast():
            return log_likelihoods(model, self.encoder, examples, tokens, self.progress.advance)

    def _autocast(self) -> AbstractContextManager[Any]:
        if not self.mixed:
            return nullcontext()
        return torch.autocast(self.backbone.model.device.type, dtype=torch.bfloat16)


def _no_task(text: str) -> Task:
    return Task("", chat=conversation(text) is not None)


def stored_targets(directory: ModelDirectory) -> list[str] | str | None:
    """The matrices that a directory's last update adapts, if it is PEFT's LoRA.

    Another version may choose others by default than the one that the directory began with.
    """
    paths = directory.update_paths()
    file = paths[-1] / "adapter_config.json" if paths else None
    if file is None or not file.is_file():
        return None
    stored = json.loads(file.read_text(encoding="utf-8"))
    return stored.get("target_modules") if stored.get("peft_type") == "LORA" else None


def make_adapter(
    plan: Plan, backbone: Backbone, begun_with: list[str] | str | None = None
) -> Adapter:
    """The adapter that the plan's method asks for, in the backbone.

    `begun_with` are the matrices of earlier updates, which stay where the settings name none.
    """
    kind = adapter(plan.method.adapter)
    run = plan.run
    check_frozen(plan, backbone.quantized)
    if kind.name == "lora" and run.target_modules is None and begun_with is not None:
        run = run.model_copy(update={"target_modules": begun_with})
    made = kind.build(backbone.model, run, **plan.method.adapter_options())

    def base_weights() -> dict[str, Tensor]:
        return dict(load(plan.base, weights_dtype(plan)).model.named_parameters())

    made.base_weights = base_weights
    return made


def check_frozen(plan: Plan, quantized: str | None) -> None:
    """Raise NloraError if the plan's adapter would change a base model that is quantised so."""
    kind = adapter(plan.method.adapter)
    if quantized is not None and not kind.can.quantized:
        raise NloraError(
            f"adapter '{kind.name}' changes the base model's weights, which are quantised "
            f"({quantized}); use LoRA adapters"
        )


def weights_dtype(plan: Plan) -> torch.dtype:
    """In what the model is loaded: fp32 also where its own weights are trained.

    With `precision=bf16` training is then mixed.
    """
    trained = adapter(plan.method.adapter).needs_fp32
    return torch.float32 if plan.run.precision == "fp32" or trained else torch.bfloat16


def make_encoder(plan: Plan, backbone: Backbone) -> Encoder:
    """The encoder for the plan's prompts and the backbone's tokenizer."""
    run = plan.run
    return Encoder(
        backbone.tokenizer,
        Prompter(run.prompt, run.chat, backbone.tokenizer),
        backbone.encoder_decoder,
        run.max_length,
        run.max_text_tokens,
        embedding_rows(backbone.model),
    )
