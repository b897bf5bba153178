"""The contract of a continual-learning method: a rule over an adapter.

A method is one class in one file. The loop (`nlora.training.loop`) knows no method by name: it
calls these hooks, whose defaults make plain incremental LoRA. A new method overrides what differs.
Every hook gets one context (`methods.context`): the stage, the step, and the model in memory. What
a method must remember from stage to stage it declares as its `State`; everything else it takes from
the context, so that no hook depends on which one was called before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel

from nlora.errors import NloraError
from nlora.methods.returned import MixedIn, Penalty, Proximal, Route, Term, Until
from nlora.methods.settings import (
    LARGEST,
    ONE_PER_STAGE,
    PerStage,
    Settings,
    Weight,
    per_stage,
)
from nlora.methods.state import State

__all__ = ["LARGEST", "ONE_PER_STAGE", "Method", "MixedIn", "Penalty", "PerStage", "Proximal"]
__all__ += ["Route", "Settings", "State", "Term", "Until", "Weight", "overrides", "per_stage"]

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

    from nlora.adapters.base import Start
    from nlora.data.encode import Encoded
    from nlora.data.task import Example, Task, TaskData
    from nlora.evaluation.answers import Metric
    from nlora.methods.context import Batch, Context, Stage


class Method:
    """A continual-learning method. Class attributes describe it, hooks are its rule."""

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str] = ""
    Settings: ClassVar[type[BaseModel]] = Settings
    State: ClassVar[type[Any]] = State
    """A subclass of `methods.base.State`."""
    continues: ClassVar[bool] = False
    """A stage goes on with the update of the one before it instead of a fresh one."""
    frozen: ClassVar[Collection[str]] = ()
    """Factors of a LoRA update that are not trained: "A" or "B"."""
    scales_earlier: ClassVar[bool] = False
    """Each earlier update has one trainable scalar."""
    needs_previous: ClassVar[bool] = False
    """The method calls `Context.previous`."""
    writes_in_steps: ClassVar[bool] = False
    """Each process lets the model write texts in a step, its own share of the batch."""
    needs_covariances: ClassVar[bool] = False
    """The method reads `Step.covariances`."""
    needs_magnitudes: ClassVar[bool] = False
    """The method reads `Step.magnitudes`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "paper" not in vars(cls):  # a method that extends another is not its paper's
            cls.paper = ""
        for kind in (k for k in cls.__mro__ if issubclass(k, Method)):
            if kind.State is not State and not issubclass(cls.State, kind.State):
                raise NloraError(
                    f"{cls.__name__}: its State must extend that of {kind.__name__}: "
                    f"class {cls.State.__name__}({kind.__name__}.State)"
                )

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        self.state: Any = self.State()

    @property
    def adapter(self) -> str:
        """Where the update lives: the name of an adapter (`nlora.adapters`). A setting may say."""
        return "lora"

    @property
    def needs_task_id(self) -> bool:
        """Prediction needs to know which task an example belongs to."""
        return False

    @property
    def needs_old_data(self) -> bool:
        """Training reads examples of earlier tasks; tables have a footnote on such methods."""
        return isinstance(self.free.replay, float)

    @property
    def free(self) -> Settings:
        """The settings that every method has that trains on data (`methods.settings`)."""
        return self.settings if isinstance(self.settings, Settings) else Settings.model_validate({})

    @property
    def storage_grows(self) -> bool:
        """What answers are made from grows with the tasks."""
        return False

    @property
    def extra_passes(self) -> float:
        """Passes over a stage's examples beside those of its training, such as for covariances.

        One that goes beside every step (a teacher's) counts once; samples do not count.
        """
        return 0.0

    @property
    def mergeable(self) -> bool:
        """What answers can be saved as one model of the base model's kind, for any program."""
        return self.adapter != "prompt" and not self.storage_grows

    @property
    def keeps_gradients(self) -> bool:
        """Whether `ctx.step.gradients` is read when `.grad` holds it no more, which costs a copy.

        Default: by a method that changes gradients or acts after the step.
        """
        return overrides(self, "gradients") or overrides(self, "after_step")

    def own_weight(self) -> str | None:
        """The setting that tuning varies beside the learning rate. Default: there is none."""
        return None

    def first_stage(self) -> dict[str, Any] | None:
        """What decides the first stage beside data, seed and run settings; None: not to be shared.

        `nlora compare` trains it once for all methods that give the same. Only the definition in a
        method's own class counts, since a subclass may change what happens in the stage.
        """
        return None

    def check(self) -> None:
        """Raise NloraError, before anything is loaded, for a file of a setting that is missing."""
        from nlora.methods.parts.rehearsal import check

        check(self.free)

    def check_tasks(self, tasks: Sequence[TaskData]) -> None:
        """Raise NloraError, before anything is loaded, for a task that cannot be learned so.

        By default one by which no weight that is `auto` could be judged.
        """
        settings = self.settings
        if any(getattr(settings, name) == "auto" for name in type(settings).model_fields):
            from nlora.methods.parts.auto import check

            check(tasks)

    def run_defaults(self) -> dict[str, Any]:
        """Run settings that the method's paper fixes, such as its optimiser's learning rate."""
        return {}

    def adapter_options(self) -> dict[str, Any]:
        """Options of the adapter that are settings of the method (a prompt's length)."""
        return {}

    def stages(self, stream: Sequence[TaskData]) -> list[tuple[str, tuple[TaskData, ...]]]:
        """What is trained one after another: (name, tasks) per stage. Default: a stage per task."""
        return [(data.name, (data,)) for data in stream]

    def goes_on(self, stage: Stage) -> bool:
        """Whether a stage continues the update before it. Default: as `continues` says."""
        return self.continues

    def start(self, ctx: Context) -> Start | None:
        """How a fresh update starts. Default None: as the adapter starts by itself."""
        return None

    def begin(self, ctx: Context) -> None:
        """Make the update ready: a fresh one on top of all earlier ones, or the last continued."""
        ctx.adapter.begin(
            continued=self.goes_on(ctx.stage),
            keep_previous=self.needs_previous,
            start=self.start(ctx),
            frozen=self.frozen,
            scales=self.scales_earlier,
        )

    def examples(self, ctx: Context) -> Sequence[Example]:
        """What is trained on. Default: the training examples of the stage's tasks."""
        return [example for data in ctx.stage.tasks for example in data.train]

    def mixed_in(self, ctx: Context) -> MixedIn:
        """What is trained on beside that, and its share. Default: nothing."""
        return MixedIn()

    def rehearsed(self, ctx: Context) -> MixedIn:
        """What is rehearsed beside that. Default: as the setting `replay` says."""
        from nlora.methods.parts.rehearsal import rehearsed

        return rehearsed(self.free, self.state.rehearsal, ctx)

    def encode(self, ctx: Context, examples: Sequence[Example]) -> list[Encoded]:
        """Token ids of the examples, and which of them count in the loss (`Encoded.counts`).

        Default: the prompt, and an answer that counts as a whole.
        """
        return ctx.encoder.all(examples)

    def batch(self, ctx: Context, batch: Batch) -> Batch:
        """The micro-batch that is trained on, before its answer tokens are counted.

        On the CPU, as `data.batches.Collator` made it. Default: as it is.
        """
        return batch

    def loss(self, ctx: Context, batch: Batch) -> dict[str, Tensor]:
        """The terms that depend on data, by name; each is logged, their sum is minimised.

        Sums over the micro-batch divided by `ctx.tokens`, the number of answer tokens in the whole
        optimiser step, add up over micro-batches and processes to the mean over tokens.
        """
        logits, targets = ctx.logits(batch)
        return {"task": self.answer_loss(ctx, batch, logits, targets)}

    def answer_loss(self, ctx: Context, batch: Batch, logits: Tensor, targets: Tensor) -> Tensor:
        """The term of the answers, as the settings `loss` and `rehearsal` say; no hook.

        `logits` (n, vocabulary) and `targets` (n,) are those of `Context.logits`.
        """
        from nlora.methods.parts.answers import answer_loss

        kept = self.state.rehearsal
        return answer_loss(self.free, kept, ctx, batch, logits, targets) / ctx.tokens

    def frozen_parameters(self, ctx: Context) -> Collection[str]:
        """The names, in the model, of what could be trained and is not in this stage.

        Default: lower layers, as the setting `frozen_layers` says.
        """
        from nlora.methods.parts.depth import frozen_parameters

        return frozen_parameters(self.free, ctx)

    def penalties(self, ctx: Context) -> list[Penalty]:
        """The terms that depend on parameters only. Default: none."""
        return []

    def measured(self, stage: int) -> list[str]:
        """The penalties of stage 1, 2, … whose weight is measured over its first steps, by name.

        In a stage of fewer steps they never act, which is told beforehand. Default: none.
        """
        return []

    def gradients(self, ctx: Context) -> Mapping[Parameter, Tensor] | None:
        """Other gradients for the step, by parameter; those that are not named stay.

        Called once per optimiser step, after the gradients are summed over processes and before
        they are clipped. `parameter.grad` has the penalties' gradients in it,
        `ctx.step.gradients` is the task's alone. Default None: as they are.
        """
        return None

    def after_step(self, ctx: Context) -> None:
        """After the optimiser's step; `ctx.step.rates` tells how far it went. Default: nothing."""

    def until(self, ctx: Context) -> Until | None:
        """What ends the stage before its last step. Default: as the setting `max_kl` says."""
        from nlora.methods.parts.until import until

        return until(self.free, ctx)

    def end(self, ctx: Context) -> None:
        """After training and before the stage is evaluated: buffers, importance weights."""

    def keep(self, ctx: Context) -> None:
        """After `end`: what is kept for later stages. Default: as the setting `replay` says."""
        from nlora.methods.parts.rehearsal import keep

        keep(self.free, self.state.rehearsal, ctx)

    def kept_examples(self) -> dict[str, int]:
        """How many training examples of each task the state holds: old data that stays.

        Default: those that the setting `replay` keeps.
        """
        return dict(Counter(row["task"]["name"] for row in self.state.rehearsal.examples))

    def accept(self, ctx: Context, before: Mapping[str, float], after: Mapping[str, float]) -> bool:
        """Whether the stage is to stand. If not, the model goes on as it was before it.

        `before` and `after` are accuracies (or what `metric` measures) by task, per cent: of the
        earlier tasks after the stage before, and of all tested tasks after this one.
        """
        return True

    def take_out(self, stage: int) -> None:
        """Let go what is remembered of a stage whose update is taken out of the model.

        Default: nothing is remembered. Raises NloraError where it cannot be parted from the rest.
        """
        if self.State is not State:
            raise NloraError(
                f"{self.name} keeps something of all its tasks together, so none can be taken out"
            )

    def metric(self, task: Task) -> Metric:
        """What answers to a task are measured by. Default: as the task says, else exact match.

        Raises NloraError for a metric that is not known, or whose library is missing.
        """
        from nlora.evaluation.metrics import metric

        return metric(task.metric)

    @contextmanager
    def at(self, ctx: Context, stage: int) -> Iterator[None]:
        """The model as it answers for a stage that an example is known or taken to belong to.

        Default: as it was after that stage.
        """
        with ctx.after(stage):
            yield

    def route(self, ctx: Context, examples: Sequence[Example]) -> list[int] | None:
        """The stage to answer each example with. Default None: one model for all."""
        return None

    def routes(
        self, ctx: Context, examples: Sequence[Example], named: bool = True
    ) -> list[Route] | None:
        """As `route`, with what is known of each choice; Default: nothing but the stage.

        Without `named` it is not known which task is asked: of an example the text counts alone.
        """
        found = self.route(ctx, examples)
        return None if found is None else [Route(stage) for stage in found]

    def alike(self, ctx: Context) -> Mapping[int, Collection[int]]:
        """By stage those whose texts `routes` cannot tell from its own. Default: none is known."""
        return {}

    @property
    def routes_by_input(self) -> bool:
        """Whether `route` chooses, so that answers depend on which task an example is taken for."""
        return overrides(self, "route")

    def notes(self, ctx: Context) -> dict[str, Any]:
        """What the stage should record, after `end`. Default: nothing."""
        return {}


def overrides(method: Method, hook: str) -> bool:
    """Whether a method has a hook of its own: what is not asked for need not be prepared."""
    return getattr(type(method), hook) is not getattr(Method, hook)
