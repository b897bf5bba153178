"""A model that learns stage after stage: what `run` and `learn` share."""

import json
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from nlora import processes
from nlora.carriers.base import Carrier
from nlora.carriers.full import Full
from nlora.carriers.lora import Lora
from nlora.carriers.osf import Osf
from nlora.carriers.prompt import Prompt
from nlora.carriers.sparse import Sparse
from nlora.data.batches import Collator
from nlora.data.encode import Encoder
from nlora.data.prompts import Prompter
from nlora.data.task import Example, TaskData
from nlora.evaluation.decode import Prediction, accuracy, predict
from nlora.models.backbone import Backbone
from nlora.store.atomic import draft_text
from nlora.store.directory import ModelDirectory, StageRecord
from nlora.training.config import Plan
from nlora.training.progress import Watcher, watched
from nlora.training.trainer import count_steps, train


class Learner:
    """A backbone with a carrier and a method, and the directory that keeps what it learns.

    `stream` holds every task of the run, learned or yet to be.
    """

    def __init__(
        self,
        plan: Plan,
        backbone: Backbone,
        directory: ModelDirectory,
        stream: Sequence[TaskData],
        watcher: Watcher,
    ) -> None:
        run = plan.run
        self.plan = plan
        self.method = plan.method
        self.backbone = backbone
        self.directory = directory
        self.stream = list(stream)
        self.watcher = watcher
        self.encoder = make_encoder(plan, backbone)
        self.mixed = run.precision == "bf16" and weights_dtype(plan) == torch.float32
        self.carrier: Carrier = make_carrier(plan, backbone)
        self.records = directory.stages()

    def restore(self) -> None:
        """Bring the model to where the last committed stage left it."""
        self.carrier.load(self.directory.update_paths())
        if self.records:
            state = self.directory.stage_path(self.records[-1]) / "state"
            if state.is_dir():
                self.method.load(state)

    def stage_index(self, task: str) -> int | None:
        """The stage in which a task was learned, or None."""
        for record in self.records:
            if any(t["name"] == task for t in record.tasks):
                return record.index
        return None

    @contextmanager
    def standing(self, stage: int) -> Iterator[None]:
        """The model as it stood after a stage; the base model after stage 0."""
        if self.records and self.records[-1].index == stage:
            yield
            return
        with self.carrier.standing(self.directory.update_paths(stage)):
            yield

    def zero_shot(self) -> None:
        """Evaluate all tasks before any training, and commit that."""
        started = time.perf_counter()
        answers = self.evaluate(self.stream)
        record = StageRecord(index=0, name="zero-shot", seed=self.plan.config.seed)
        self.commit(record, answers, [], {"evaluation": time.perf_counter() - started}, None)

    def learn(self, stage: Any, tested: Sequence[TaskData]) -> StageRecord:
        """Train one stage, evaluate `tested`, and commit both."""
        started = time.perf_counter()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        run = self.plan.run
        set_seed(stage.seed)
        self.method.begin(self, stage)
        examples = self.encoder.all(self.method.examples(self, stage))
        examples = processes.from_main(examples)  # all must agree, also on what was generated
        stage = replace(stage, steps=count_steps(len(examples), run, stage.index))
        penalties = self.method.penalties(self, stage)
        with watched(self.watcher, f"{stage.index} {stage.name}: training", stage.steps):
            losses = train(
                self.method,
                self.carrier.model,
                stage,
                examples,
                penalties,
                run,
                Collator(
                    self.backbone.tokenizer.pad_token_id,
                    self.backbone.encoder_decoder,
                    share_prefix=run.shared_prefix == "auto",
                ),
                self.mixed,
                self.watcher,
                self.directory.path / "logs",
            )
        self.carrier.consolidate()
        self.method.end(self, stage)
        trained = time.perf_counter()
        earlier = self.records[-1].updates if self.records else []
        record = StageRecord(
            index=stage.index,
            name=stage.name,
            tasks=[data.task.to_json() for data in stage.tasks],
            fingerprints={data.name: data.fingerprint() for data in stage.tasks},
            seed=stage.seed,
            examples=len(examples),
            steps=stage.steps,
            trainable_parameters=sum(p.numel() for p in self.carrier.trainable()),
            notes={
                "truncated": sum(e.truncated for e in examples),
                **self.carrier.notes(),
                **{p.name: p.notes() for p in penalties if p.notes()},
            },
        )
        kept = earlier[:-1] if self.carrier.replaces else earlier
        record.updates = [*kept, record.folder]
        self.records.append(record)
        answers = self.evaluate(tested)
        seconds = {"training": trained - started, "evaluation": time.perf_counter() - trained}
        self.commit(record, answers, losses, seconds, stage.tasks)
        return record

    def evaluate(self, tasks: Sequence[TaskData]) -> dict[str, list[Prediction]]:
        """The model's answers to the test examples of each task."""
        answers = {}
        with watched(self.watcher, "evaluation", sum(len(data.test) for data in tasks)):
            for data in tasks:
                answers[data.name] = self._answer(data)
        return answers

    def _answer(self, data: TaskData) -> list[Prediction]:
        """Answers as the method predicts: told the stage, routed, or by the one model."""
        learned = self.stage_index(data.name)
        if self.method.needs_task_id and learned is not None:
            routes: list[int] | None = [learned] * len(data.test)
        else:
            routes = processes.from_main(self.method.route(self, data.test))
        if routes is None:
            return self._predict(data.test)
        found: dict[int, Prediction] = {}
        for stage in sorted(set(routes)):
            rows = [i for i, route in enumerate(routes) if route == stage]
            with self.method.at(self, stage):
                found.update(zip(rows, self._predict([data.test[i] for i in rows]), strict=True))
        return [found[i] for i in range(len(data.test))]

    def _predict(self, examples: Sequence[Example]) -> list[Prediction]:
        run = self.plan.run
        with self._autocast():
            return predict(
                self.carrier.model,
                self.encoder,
                examples,
                run.max_new_tokens,
                run.eval_tokens,
                advance=self.watcher.advance,
            )

    def _autocast(self) -> AbstractContextManager[Any]:
        if not self.mixed:
            return nullcontext()
        return torch.autocast(self.backbone.model.device.type, dtype=torch.bfloat16)

    def commit(
        self,
        record: StageRecord,
        answers: dict[str, list[Prediction]],
        losses: list[dict[str, float]],
        seconds: dict[str, float],
        trained: Sequence[TaskData] | None,
    ) -> None:
        """Write a stage: its record, answers and losses, and the update that the carrier holds.

        Without `trained` tasks there is no update: the evaluation before training.
        """
        record.accuracy = {task: accuracy(rows) for task, rows in answers.items()}
        record.tested = {task: len(rows) for task, rows in answers.items()}
        record.seconds = seconds
        record.peak_memory_bytes = peak_memory()
        record.versions = versions()

        def write(folder: Path) -> None:
            rows = [
                {"task": task, "index": i, "text": p.text, "label": p.label, "correct": p.correct}
                for task, predictions in answers.items()
                for i, p in enumerate(predictions)
            ]
            draft_text(folder / "predictions.jsonl", _jsonl(rows))
            if trained is None:
                return
            draft_text(folder / "losses.jsonl", _jsonl(losses))
            tests = [e for data in trained for e in data.test]
            rows = [{"task": e.task.name, "text": e.text, "label": e.label} for e in tests]
            draft_text(folder / "test.jsonl", _jsonl(rows))
            self.carrier.save(folder / "update")
            (folder / "state").mkdir()
            self.method.save(folder / "state")
            if not any((folder / "state").iterdir()):
                (folder / "state").rmdir()

        processes.on_main(lambda: self.directory.commit(record, write))


def make_carrier(plan: Plan, backbone: Backbone) -> Carrier:
    """The carrier that the plan's method asks for, in the backbone."""
    run = plan.run
    options = plan.method.carrier_options()
    if plan.method.carrier == "lora":
        return Lora(
            backbone.model,
            rank=run.rank,
            alpha=run.alpha,
            dropout=run.dropout,
            target_modules=run.target_modules,
            fold=run.precision == "fp32",
            history_rank=run.history_rank,
            **options,
        )
    if plan.method.carrier == "sparse":
        return Sparse(
            backbone.model,
            rank=run.rank,
            target_modules=run.target_modules,
            fold=run.precision == "fp32",
            **options,
        )
    if plan.method.carrier == "full":
        return Full(backbone.model, **options)
    if plan.method.carrier == "osf":
        return Osf(backbone.model, run.target_modules, **options)
    return Prompt(backbone.model, **options)


def weights_dtype(plan: Plan) -> torch.dtype:
    """In what the model is loaded: fp32 also where its own weights are trained.

    With `precision=bf16` training is then mixed.
    """
    trained = plan.method.carrier in ("full", "osf")
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
    )


def _jsonl(rows: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def peak_memory() -> int:
    """Bytes at the peak: of the CUDA device where there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def versions() -> dict[str, str]:
    """Versions of what numbers depend on."""
    import accelerate
    import peft
    import transformers

    import nlora

    return {
        "nlora": nlora.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "accelerate": accelerate.__version__,
        "python": sys.version.split()[0],
    }
