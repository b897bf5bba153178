"""What of a run is to be explained: which stages are looked at, about which texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nlora.data.comparing import comparison
from nlora.data.task import Example, TaskData, sample
from nlora.errors import NloraError, unknown
from nlora.explain.looks import Look
from nlora.explain.sources import KINDS
from nlora.explain.texts import CONTENT_FREE, SEED, drawn

if TYPE_CHECKING:
    from nlora.continual.model import ContinualModel


SHIFT = "shift"
"""The kind of text of which hidden states are compared."""


@dataclass(frozen=True)
class Options:
    """What `nlora explain` is asked for."""

    texts: int = 100
    """Of each kind, at most; of the test texts all are asked."""
    kinds: tuple[str, ...] = tuple(kind for kind in KINDS if kind not in ("neutral", "by-label"))
    neutral: Path | None = None
    """A file of neutral texts."""
    every_stage: bool = False
    """Look after every later stage, not only after the last."""
    probe: int = 200
    """Training examples that a probe learns from, at most, every label's share; 0 for no probe."""
    relearn: int = 0
    """Learn so many examples of each earlier task again, on a copy."""
    shift: int = 60
    """Test texts whose hidden states are compared before and after each stage; 0 for none."""
    gradients: int = 32
    """Training examples of each task whose gradients are compared before each stage; 0: none."""
    on_dev: bool = False
    """Ask dev examples in place of the test's, so that something can be chosen by them."""

    @classmethod
    def quick(cls) -> "Options":
        """A third of the questions: labels, and offsets from own and self-written texts alone."""
        return cls(kinds=("train", "self"), probe=0, shift=0, gradients=0)

    def checked(self) -> "Options":
        """With the kind of text that a file is for. Raises NloraError for what cannot be."""
        for kind in self.kinds:
            if kind not in KINDS:
                raise unknown("kind of text", kind, KINDS)
        if "neutral" in self.kinds and self.neutral is None:
            raise NloraError("neutral texts come from a file: give --neutral FILE")
        if self.texts < 1 or min(self.relearn, self.probe, self.shift, self.gradients) < 0:
            raise NloraError(
                "--texts must be at least 1, --probe, --relearn, --shift, --gradients at least 0"
            )
        kinds = dict.fromkeys((*self.kinds, *(["neutral"] if self.neutral else [])))
        return replace(self, kinds=tuple(kind for kind in KINDS if kind in kinds))


@dataclass(frozen=True)
class Learned:
    """A task that was learned in one of the stages, with all its examples that are known."""

    data: TaskData
    stage: int
    later: tuple[int, ...]
    """The later stages that are looked at; the last of all, if there is one, among them."""

    @property
    def stages(self) -> list[int]:
        """All that are looked at: the base model (0), the stage before its own, and so on."""
        return list(dict.fromkeys([0, self.stage - 1, self.stage, *self.later]))

    @property
    def labels(self) -> tuple[str, ...]:
        assert self.data.task.labels is not None
        return self.data.task.labels

    def indices(self, examples: Sequence[Example]) -> list[int]:
        """The right label of each example, as an index."""
        form = comparison(self.labels)
        places = {form(label): place for place, label in enumerate(self.labels)}
        return [places[form(example.label)] for example in examples]


class Questions:
    """The examples behind every look at a task."""

    def __init__(
        self,
        options: Options,
        neutral: Sequence[str],
        written: Sequence[str],
        by_label: Mapping[str, Sequence[str]],
        by_stage: dict[int, list[TaskData]],
    ) -> None:
        self.options = options
        self.texts = {"neutral": neutral, "self": written, "content-free": CONTENT_FREE}
        self.by_label = by_label
        """What the base model writes by the labels of each task, by its name."""
        self.by_stage = by_stage
        """The tasks that each stage trained, for the newest one's texts."""

    def probed(self, known: Learned) -> tuple[Example, ...]:
        """The training examples that a probe learns from."""
        return sample(known.data.train, self.options.probe, SEED)

    def dev(self, known: Learned) -> tuple[Example, ...]:
        """The dev examples that offsets may come from: none of those that are asked."""
        return () if self.options.on_dev else sample(known.data.dev, self.options.texts, SEED)

    def looks(self, known: Learned) -> dict[Look, Sequence[Example]]:
        """What is asked about a task, by look. Kinds without texts are left out."""
        found: dict[Look, Sequence[Example]] = {}
        name = known.data.name
        for stage in known.stages:
            found[Look(stage, name, "test")] = known.data.test
            if known.data.train and "train" in self.options.kinds:
                found[Look(stage, name, "train")] = self._own(known)
            if stage < known.stage:
                continue
            if known.data.train and self.options.probe:
                found[Look(stage, name, "test", "states")] = known.data.test
                found[Look(stage, name, "train", "states")] = self.probed(known)
            if "dev" in self.options.kinds and (dev := self.dev(known)):
                found[Look(stage, name, "dev")] = dev
            for kind, texts in (*self.texts.items(), ("by-label", self.by_label.get(name))):
                if kind in self.options.kinds and texts:
                    asked = [Example(known.data.task, text, "") for text in texts]
                    found[Look(stage, name, kind)] = asked
        shifted = sample(known.data.test, self.options.shift, SEED)
        for stage in range(known.stage, known.later[-1] + 1) if shifted and known.later else ():
            found[Look(stage, name, SHIFT, "states")] = shifted
        for later in (known.later or (known.stage,)) if "newest" in self.options.kinds else ():
            if newest := self._newest(known, later):
                for stage in (known.stage, later):
                    found[Look(stage, name, newest_kind(later))] = newest
        return found

    def _own(self, known: Learned) -> list[Example]:
        texts = [example.text for example in known.data.train]
        chosen = drawn(texts, self.options.texts, known.data.name)
        return [Example(known.data.task, text, "") for text in chosen]

    def _newest(self, known: Learned, stage: int) -> list[Example]:
        """The question of a task about texts of the one that a later stage trained."""
        own = [
            example.text
            for data in self.by_stage.get(stage, [])
            if data.task.chat == known.data.task.chat
            for example in data.train
        ]
        chosen = drawn(own, self.options.texts, "newest")
        return [Example(known.data.task, text, "") for text in chosen]


def newest_kind(stage: int) -> str:
    """What looks at the newest task's texts after a stage are called."""
    return f"newest-{stage}"


def learned(model: "ContinualModel", stream: Sequence[TaskData], options: Options) -> list[Learned]:
    """The tasks that a model has learned, with the training and dev examples of `stream`.

    What is asked are the test examples that the model's folder keeps, or as many of dev. Tasks of
    a stage that was not accepted were not learned; where dev is to be asked and there is none, a
    task is left out, and that is told.
    """
    there = {data.name: data for data in stream}
    last = len(model.records)
    found = []
    for data in model.stream:
        stage = model.stage_of(data.name)
        if data.only_tested or stage is None or "rejected" in model.records[stage - 1].notes:
            continue
        known = there.get(data.name, data)
        later = range(stage + 1, last + 1)
        chosen = tuple(later) if options.every_stage else tuple(later)[-1:]
        # Tests that a later stage brought which was not accepted were not asked then.
        test = data.test[: model.records[stage - 1].tested.get(data.name)]
        test = sample(known.dev, len(test), SEED) if options.on_dev else test
        if not test:
            model.progress.message(f"'{data.name}' has no dev examples and is left out")
            continue
        whole = TaskData(data.task, train=known.train, test=test, dev=known.dev)
        found.append(Learned(whole, stage, chosen))
    return found
