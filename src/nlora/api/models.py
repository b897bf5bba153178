"""`nlora.load`: a model that has learned, held in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlora.api.arguments import check, place
from nlora.api.configs import Place, method_name
from nlora.api.exporting import export
from nlora.api.learning import learn, requested
from nlora.api.results import Answers, Evaluation, Exported, History, Results
from nlora.api.tasks import AnyTask, Rows, Task, metric_name, reading_of, rows_of
from nlora.api.watching import watched
from nlora.continual import answering, evaluating, holding
from nlora.continual.agreement import stored_plan
from nlora.continual.guard import SetAside
from nlora.continual.history import history
from nlora.continual.results import current, in_force
from nlora.data.files import read_texts
from nlora.data.memory import InMemory
from nlora.errors import unknown
from nlora.progress import NoProgress, Progress
from nlora.store.directory import ModelDirectory

if TYPE_CHECKING:
    from nlora.continual.model import ContinualModel
    from nlora.data.formats import Source
    from nlora.data.task import TaskData
    from nlora.evaluation.own_metrics import Own
    from nlora.methods.base import Method
    from nlora.plan.resolve import Plan


def load(
    path: Place,
    *,
    own: type[Method] | Own | Sequence[type[Method] | Own] = (),
    progress: Progress | bool | None = None,
) -> Model:
    """The model of a directory that `run` or `learn` has written, as its last stage left it.

    `own` are methods (classes) and metrics (functions) of one's own that it was made with, where
    they were handed over and lie in no file. Raises NloraError if there is no model, or if its base
    model is another one now.

    >>> import nlora
    >>> from tempfile import mkdtemp
    >>> rows = [("i was charged twice", "billing"), ("it is slow", "technical")]
    >>> mail = nlora.Task("mail", train=rows, test=rows, labels="auto", instruction="Which team?")
    >>> place = mkdtemp()
    >>> _ = nlora.learn(place, mail, model="tiny-t5", settings={"rank": 2})
    >>> model = nlora.load(place)
    >>> model.tasks, [answer.task for answer in model.predict(["why two charges?"])]
    (['mail'], ['mail'])
    >>> str(model).endswith("inc-lora on tiny-t5, mail (2 to train, 2 to test))")
    True
    """
    for one in own if isinstance(own, Sequence) else [own]:
        if isinstance(one, type):
            method_name(one)
        else:
            metric_name(one)
    return Model(place(path=path), watched(progress) or NoProgress())


class Model:
    """A model directory with its model in memory, as its last stage left it."""

    def __init__(self, path: Path, progress: Progress) -> None:
        self.path = path
        self._progress = progress
        self._held: ContinualModel | None = None
        self.continual  # noqa: B018  # loaded at once, so that what is wrong is said here

    def __repr__(self) -> str:
        model, trained = self.continual, Counter[str]()
        for record in in_force(model.records):
            for task, rows in record.budget.get("rows", {}).items():
                trained[task] += rows["train"][0]
        told = [
            f"{data.name} ({trained[data.name]} to train, {len(data.test)} to test)"
            for data in model.stream
        ]
        made = f"{model.plan.config.method} on {model.plan.base.title}"
        return f"Model({str(self.path)!r}, {made}, {', '.join(told)})"

    @property
    def continual(self) -> ContinualModel:
        """The model as the rest of the library has it (`nlora.continual.model`)."""
        if self._held is None:
            directory = ModelDirectory(self.path)
            plan = stored_plan(directory)
            from nlora.continual.model import ContinualModel  # slow, and not for what is refused

            self._held = ContinualModel.begin(plan, directory, self._progress)
        return self._held

    @property
    def model(self) -> Any:
        """The Transformers model with the updates of the last stage in force.

        It may be another object after `learn`, `accept` or `reload`. Where every task has a model
        of its own this is that of the last one; `predict` takes each text to the right one.
        """
        inside = self.continual.adapter.model
        return inside.get_base_model() if hasattr(inside, "peft_config") else inside

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the base model."""
        return self.continual.backbone.tokenizer

    @property
    def tasks(self) -> list[str]:
        """The names of the tasks that it has learned."""
        return [data.name for data in self.continual.stream]

    @property
    def results(self) -> Results:
        """What its stages gave, as `run` and `learn` return it."""
        return Results(current(ModelDirectory(self.path)))

    @property
    def history(self) -> History:
        """Its stages: data, when, accuracy then and now, and what is kept of the data."""
        return History(history(ModelDirectory(self.path)))

    def predict(
        self, texts: Rows, task: str | None = None, *, answers: str = "auto", free: bool = False
    ) -> Answers:
        """Answers to texts, as `nlora predict` gives them.

        `texts` is a text, a list of texts or of conversations, a table with a column of texts, or
        the `Path` of a file. Each is asked as the examples of the task were; without `task` there
        must be one alone, or a method that finds it by the text. `answers="matched"` chooses labels
        with an offset that makes the model answer as right after the task, "likely" without, and
        "auto" with it where `nlora explain --dev` has found that it helps; `free` gives the text of
        greedy decoding, which may be no label. Raises NloraError for an unknown task.
        """
        from nlora.explain.answers import correct_by

        check(task=task)
        correct, model = correct_by(answers, free), self.continual
        given = [texts] if isinstance(texts, str) else texts
        where = given if isinstance(given, Path) else InMemory(given, "texts")
        asked = read_texts(where, None, None, self._progress.message)
        answering.check_asked(model.plan, model.directory, asked, task)
        corrections = correct(model, self.tasks if task is None else [task]) if correct else {}
        return Answers(answering.answers(model, asked, task, free, corrections))

    def evaluate(
        self,
        data: Task | Rows | None = None,
        task: str | None = None,
        *,
        after: int | str | None = None,
        columns: Mapping[str, str] | str | None = None,
        skip_bad_rows: bool = False,
    ) -> Evaluation:
        """What it scores: every task on the tests that the directory keeps, or `task` alone.

        `data` are rows of a task to test with instead, or a `Task` with test rows. `after` is a
        stage, by number or name: the model as it was then; 0 is the base model. Nothing is written.
        Raises NloraError for rows that are not the task's.
        """
        check(task=task)
        model = self.continual
        model.plan.check_metrics()
        where = None if data is None else _tests(data)
        if task is None and isinstance(data, Task) and data.name in self.tasks:
            task = data.name
        asked = evaluating.wanted(
            model.directory,
            model.stream,
            task,
            where,
            None if after is None else str(after),
            reading_of(columns, skip_bad_rows),
            self._progress,
        )
        return Evaluation(evaluating.evaluated(model, asked))

    def learn(self, task: AnyTask, **options: Any) -> Results:
        """Add a task, with the options of `nlora.learn`; the model in memory is then the new one.

        The base model is not loaded again. Raises `SetAside` where the task costs too much: the
        model stays as it was.
        """
        _, _, *known = signature(learn).parameters
        for name in options:
            if name not in known:
                raise unknown("option of learn", name, known)
        told = watched(options.pop("progress", self._progress))
        asked = requested(self.path, task, progress=told, **options)
        learning = _Learning(self._held)
        try:
            return asked.done(told, learning.begin)
        except SetAside:
            raise
        except BaseException:
            learning.model = None  # left in the middle: it is loaded anew when it is asked again
            raise
        finally:
            self._held = learning.model and self._as_stored(learning.model)

    def _as_stored(self, model: ContinualModel) -> ContinualModel | None:
        """The model over all that its directory holds now, as it is loaded."""
        directory = ModelDirectory(self.path)
        return model.planned(stored_plan(directory), self._progress) if model.records else None

    def accept(self, repaired: bool = False) -> Results:
        """Let the stage stand that `learn` has kept aside, or that stage as it is repaired."""
        results = Results(holding.accept(self.path, repaired, self._progress))
        self.reload()
        return results

    def discard(self) -> None:
        """Remove the stage that `learn` has kept aside."""
        holding.discard(self.path, self._progress)

    def reload(self) -> bool:
        """Be what the directory holds now; whether that is another model than before.

        The base model stays in memory.
        """
        model = self.continual
        known = [(record.folder, record.files) for record in model.records]
        if [(record.folder, record.files) for record in model.directory.stages()] == known:
            return False
        model.refresh()
        return True

    def export(
        self,
        out: Place,
        *,
        dtype: str | None = None,
        adapter: bool = False,
        adapters: bool = False,
        rank: int | None = None,
        max_lost: float = 1.0,
    ) -> Exported:
        """Write a plain Transformers model with all updates to the new folder `out`.

        With `adapter` one PEFT adapter that is equal to all updates, with `adapters` one per task;
        `rank` recompresses these. What was measured is returned. Raises NloraError where the method
        makes no such model, and where rounding loses more than `max_lost` per cent of the updates.
        """
        return export(
            self.path,
            out,
            dtype=dtype,
            adapter=adapter,
            adapters=adapters,
            rank=rank,
            max_lost=max_lost,
            progress=self._progress,
        )


@dataclass
class _Learning:
    """The model in memory, which learns if it is asked to begin."""

    model: ContinualModel | None

    def begin(self, plan: Plan, directory: ModelDirectory, progress: Progress) -> ContinualModel:
        """The model of a plan, over the base model in memory if the directory is still of that."""
        if self.model is None or not directory.begun():
            from nlora.continual.model import ContinualModel

            self.model = ContinualModel.begin(plan, directory, progress)
        else:
            self.model = self.model.planned(plan, progress)
        return self.model


def _tests(data: Task | Rows) -> TaskData | Source:
    """Where the tests are."""
    return data.data if isinstance(data, Task) else rows_of(data, "data")
