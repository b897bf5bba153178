"""The contract of a continual-learning method: a rule over a carrier.

A method is one class in one file. The loop (`nlora.training`) knows no method by name: it calls
these hooks, whose defaults make plain incremental LoRA. A new method overrides what differs.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from pydantic import AfterValidator, BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.functional import cross_entropy

from nlora.data.encode import Encoder
from nlora.data.task import Example, TaskData
from nlora.errors import NloraError
from nlora.models.logits import answer_logits

LARGEST = 1e30
"""Of a setting: far below what fp32 can hold, so that a product of two factors is a number, too."""


def _at_least_zero(value: float | list[float]) -> float | list[float]:
    for number in value if isinstance(value, list) else [value]:
        if not 0 <= number <= LARGEST:
            raise ValueError(f"must be a number of at least 0 (and at most {LARGEST:g})")
    return value


ONE_PER_STAGE = "one per stage"
"""Marks, in `Annotated`, a setting that may be a list of one value per stage."""

PerStage = Annotated[float | list[float], AfterValidator(_at_least_zero), ONE_PER_STAGE]
"""A setting of at least 0 with one value, or one per stage."""


class Settings(BaseModel):
    """A method's own settings, validated where they enter. Subclasses add fields with help."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Stage:
    """One step of a run: the tasks that are trained together, usually one."""

    index: int
    """1, 2, …"""
    name: str
    tasks: tuple[TaskData, ...]
    seed: int
    """Decides all that is random in the stage, so that a resumed run repeats it."""
    steps: int = 0
    """Optimiser steps; known when the stage's examples are."""


class Learner(Protocol):
    """What a method sees of the run."""

    carrier: Any
    encoder: Encoder
    watcher: Any
    """Whom to tell how far long work is (`training.progress.Watcher`)."""

    @property
    def stream(self) -> Sequence[TaskData]:
        """Every task of the run, learned or yet to be."""
        ...

    def stage_index(self, task: str) -> int | None:
        """The stage in which a task was learned, or None."""
        ...

    def standing(self, stage: int) -> AbstractContextManager[None]:
        """The model as it stood after a stage; the base model after stage 0. Not in training."""
        ...


class Step(NamedTuple):
    """What a penalty sees at an optimiser step, before clipping."""

    number: int
    """0 for the stage's first."""
    total: int
    gradients: Mapping[Parameter, Tensor]
    """Of the loss that depends on data, for every trainable parameter that has one."""


class Term(NamedTuple):
    """A penalty's value and the gradients to add, weight included."""

    value: float
    gradients: Sequence[tuple[Parameter, Tensor]]


Rates = Callable[[Parameter], Tensor | float]
"""How far the optimiser's last step moved each entry of a parameter per unit of its gradient before
clipping: a number, or a tensor of the parameter's shape."""


class Penalty(Protocol):
    """A loss term that depends on parameters only, added once per optimiser step.

    Its gradient joins that of the task before clipping, as if the term stood in the loss.
    """

    name: str

    def __call__(self, step: Step) -> Term | None:
        """The term at this step, or None while it is not in force."""
        ...

    def notes(self) -> dict[str, Any]:
        """What the stage should record, such as a measured weight."""
        ...


@runtime_checkable
class Proximal(Protocol):
    """What a penalty also is if it acts on parameters after the optimiser's step."""

    def after(self, rates: Rates) -> None:
        """Take the proximal step that belongs to the optimiser's last step."""
        ...


class Method:
    """A continual-learning method. Class attributes describe it, hooks are its rule."""

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str] = ""
    Settings: ClassVar[type[BaseModel]] = Settings
    continues: ClassVar[bool] = False
    """A stage goes on with the update of the one before it instead of a fresh one."""
    needs_old_data: ClassVar[bool] = False
    """Training reads examples of earlier tasks; tables mark such methods."""
    needs_previous: ClassVar[bool] = False
    """The method calls `carrier.previous()`."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    @property
    def carrier(self) -> str:
        """Where the update lives: "lora", "full", "prompt", "sparse", "osf". A setting may say."""
        return "lora"

    @property
    def needs_task_id(self) -> bool:
        """Prediction must be told which task an example belongs to; tables mark such methods."""
        return False

    @property
    def storage_grows(self) -> bool:
        """What answers are made from grows with the tasks; tables mark such methods."""
        return False

    @property
    def mergeable(self) -> bool:
        """What answers can be saved as one model of the base model's kind, for any program."""
        return self.carrier != "prompt" and not self.storage_grows

    def own_weight(self) -> str | None:
        """The setting that tuning varies beside the learning rate. Default: there is none."""
        return None

    def first_stage(self) -> dict[str, Any] | None:
        """What decides the first stage beside data, seed and run settings; None: not to be shared.

        `nlora compare` trains it once for all methods that give the same. Only the definition in a
        method's own class counts, since a subclass may change what happens in the stage.
        """
        return None

    def run_defaults(self) -> dict[str, Any]:
        """Run settings that the method's paper fixes, such as its optimiser's learning rate."""
        return {}

    def carrier_options(self) -> dict[str, Any]:
        """Options of the carrier that are settings of the method (a prompt's length)."""
        return {}

    def stages(self, stream: Sequence[TaskData]) -> list[tuple[str, tuple[TaskData, ...]]]:
        """What is trained one after another: (name, tasks) per stage. Default: a stage per task."""
        return [(data.name, (data,)) for data in stream]

    def begin(self, learner: Learner, stage: Stage) -> None:
        """Make the update ready: a fresh one on top of all earlier ones, or the last continued."""
        learner.carrier.begin(continued=self.continues, keep_previous=self.needs_previous)

    def examples(self, learner: Learner, stage: Stage) -> Sequence[Example]:
        """What is trained on. Default: the training examples of the stage's tasks."""
        return [example for data in stage.tasks for example in data.train]

    def loss(
        self, model: nn.Module, batch: Mapping[str, Tensor], tokens: Tensor
    ) -> dict[str, Tensor]:
        """The terms that depend on data, by name; each is logged, their sum is minimised.

        `tokens` is the number of answer tokens in the whole optimiser step: sums divided by it add
        up over micro-batches and processes to the mean over tokens.
        """
        logits, targets = answer_logits(model, batch)
        return {"task": cross_entropy(logits.float(), targets, reduction="sum") / tokens}

    def penalties(self, learner: Learner, stage: Stage) -> list[Penalty]:
        """The terms that depend on parameters only. Default: none."""
        return []

    def end(self, learner: Learner, stage: Stage) -> None:
        """After training and before the stage is committed: buffers, importance weights."""

    @contextmanager
    def at(self, learner: Learner, stage: int) -> Iterator[None]:
        """The model as it answers for a stage it was told (`needs_task_id`) or routed to.

        Default: as it stood after that stage.
        """
        with learner.standing(stage):
            yield

    def route(self, learner: Learner, examples: Sequence[Example]) -> list[int] | None:
        """The stage to answer each example with. Default None: one model for all."""
        return None

    def save(self, folder: Path) -> None:
        """Write what the next stage needs beside the update (safetensors and JSON only)."""

    def load(self, folder: Path) -> None:
        """Read what `save` wrote after the last committed stage."""


def per_stage(value: float | Sequence[float], stage: int, name: str) -> float:
    """The value of a setting at stage 1, 2, …: one for all, or one per stage.

    Raises NloraError if a list is too short.
    """
    if not isinstance(value, Sequence):
        return value
    if stage > len(value):
        raise NloraError(
            f"setting '{name}' lists {len(value)} values, stage {stage} needs one more"
        )
    return value[stage - 1]
