"""A stage that costs too much, repaired without training.

Its answers to the tasks that fall too far are matched (`continual.rematch`), and its update is
scaled back: first by one factor, found by bisection, the largest at which no interval of what
a task loses lies beyond the bound;
then by a factor for each third of the layers, from that one: where what is lost comes from some
layers, the others keep their whole update. Each try costs one evaluation and none a step of
training.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from nlora.adapters.lora import Lora
from nlora.continual import rematch
from nlora.continual.guard import Answers, Fall, Verdict, verdict
from nlora.continual.tasks import brought
from nlora.errors import NloraError
from nlora.store.records import Offsets

if TYPE_CHECKING:
    from nlora.continual.model import ContinualModel
    from nlora.data.task import TaskData
    from nlora.methods.context import Stage

Scales = tuple[float, ...]
"""Of the update in the first, middle and last third of the layers."""

WHOLE = (1.0, 1.0, 1.0)
STEPS = 5
"""Of the bisection: the factor is known to 1/32."""
ENOUGH = 0.9
"""The share of what the new task gained that it must keep to be accepted unasked."""


class Scaling:
    """The update in hand, put into the model at any scale."""

    def __init__(self, adapter: Lora) -> None:
        self.adapter = adapter
        self.whole = adapter.copy()
        self.third = thirds(list(self.whole))

    def put(self, scales: Scales) -> None:
        """Let the update be so much of what was trained."""
        scaled = {
            name: factors._replace(B=scales[self.third[name]] * factors.B)
            for name, factors in self.whole.items()
        }
        self.adapter.put(scaled)
        if self.adapter.origin or not self.adapter.consolidation.additive:
            self.adapter.consolidate()  # what stands beside the update depends on it

    @contextmanager
    def at(self, scales: Scales) -> Iterator[None]:
        """The model at these scales for a while; afterwards the update is whole."""
        self.put(scales)
        try:
            yield
        finally:
            self.put(WHOLE)


def thirds(names: Sequence[str]) -> dict[str, int]:
    """In which third of its stack of layers each matrix is, by the first number in its name.

    >>> thirds(["layers.0.q", "layers.1.q", "layers.2.q", "layers.2.v", "head"])
    {'layers.0.q': 0, 'layers.1.q': 1, 'layers.2.q': 2, 'layers.2.v': 2, 'head': 2}
    """
    places = {name: re.search(r"(?<=\.)\d+(?=\.)", name) for name in names}
    depths: dict[str, int] = {}
    for name, found in places.items():
        if found is not None:
            stack = name[: found.start()]
            depths[stack] = max(depths.get(stack, 0), int(found[0]) + 1)
    return {
        name: 2 if found is None else 3 * int(found[0]) // depths[name[: found.start()]]
        for name, found in places.items()
    }


def why_not(model: ContinualModel, name: str, found: Verdict) -> str | None:
    """Why the update of the task `name` cannot be scaled back, judged so; None where it can."""
    adapter, method = model.adapter, model.method
    if method.routes_by_input or method.needs_task_id:
        if name in found.too_far:
            return f"each task has an adapter of its own, and '{name}' would have the new one"
        return "each task has an adapter of its own; what it loses, it loses by the choice of them"
    if not isinstance(adapter, Lora):
        return "the update is no LoRA adapter"
    if adapter.replaces or adapter.state():
        return "the stage has changed earlier updates, too"
    return None


class Try(NamedTuple):
    """One repair: what the new task reaches with it, and what the others lose."""

    scales: Scales
    new: float
    verdict: Verdict
    matched: bool = False
    """Whether the answers to what falls too far are matched."""

    def to_json(self) -> dict[str, Any]:
        """As it is kept in the stage's record."""
        lost = {f.task: [f.lost, f.low, f.high] for f in self.verdict.falls}
        return {
            "scales": list(self.scales),
            "matched": self.matched,
            "new": self.new,
            "lost": lost,
            "passes": not self.verdict.beyond,
        }


@dataclass
class Repair:
    """What was tried."""

    zero: float = 0.0
    """What the new task reaches without the update."""
    curve: list[Try] = field(default_factory=list)
    """The whole update first; empty where nothing could be tried."""
    answers: list[Answers] = field(default_factory=list)
    """Of each."""
    offsets: dict[str, Offsets] = field(default_factory=dict)
    """By which answers are matched, by task."""
    unscaled: str | None = None
    """Why the update was not scaled back."""
    unmatched: str | None = None
    """Why answers were not matched."""

    @property
    def best(self) -> Try | None:
        """Of those with which no interval lies beyond the bound, that of the largest gain.

        What was measured within the bound, too, is better than what chance may excuse.
        """
        passing = [one for one in self.curve if not one.verdict.beyond and one.new > self.zero]
        within = [one for one in passing if one.verdict.within]
        gains = within or passing
        return max(gains, key=lambda one: (one.new, -_worst(one.verdict).lost), default=None)

    @property
    def kept(self) -> float:
        """Of what the new task gained by the whole update, the share that the best keeps."""
        best = self.best
        gained = 0.0 if best is None else self.curve[0].new - self.zero
        return 0.0 if best is None or gained <= 0 else (best.new - self.zero) / gained

    def to_json(self) -> dict[str, Any]:
        """As it is kept in the stage's record."""
        best = self.best
        reasons = {"not": self.unscaled, "unmatched": self.unmatched}
        why = {name: reason for name, reason in reasons.items() if reason}
        if not self.curve:
            return why
        return why | {
            "without": self.zero,
            "curve": [one.to_json() for one in self.curve],
            "best": best and best.to_json(),
            "kept": self.kept,
        }


def repair(
    model: ContinualModel,
    stage: Stage,
    tested: Sequence[TaskData],
    before: Answers,
    whole: tuple[Answers, Verdict],
) -> Repair:
    """Try what repairs a stage whose update is in hand; `whole` is what it did as it is.

    Afterwards the update is as it was, and no offsets are in force.
    """
    name = stage.tasks[0].name
    places = brought([data for data in model.stream if data.name == name])[-1]
    task = next(data for data in tested if data.name == name)

    def reached(answers: Mapping[str, Any]) -> float:
        return model.measured({name: [answers[name][i] for i in places]})[name]

    def tried(scales: Scales, answers: Answers, matched: bool = False) -> Try:
        judged = verdict(before, answers, tested, whole[1].bound)
        one = Try(scales, reached(answers), judged, matched)
        found.answers.append(answers)
        found.curve.append(one)
        worst = _worst(one.verdict)
        model.progress.message(
            f"{one_in_words(one)}: '{name}' {one.new:.1f} % (whole {found.curve[0].new:.1f}), "
            f"'{worst.task}' loses most, {worst.lost:.1f} points"
        )
        return one

    found = Repair(
        unscaled=why_not(model, name, whole[1]), unmatched=rematch.why_not(model, name, whole[1])
    )
    fallen = [data for data in tested if data.name in whole[1].too_far]
    if found.unmatched is None:
        try:
            found.offsets = rematch.corrections(model, fallen)
        except NloraError as error:
            found.unmatched = str(error)
    if found.unscaled and found.unmatched:
        return found
    with model.standing(len(model.records) - 1):
        found.zero = reached(model.evaluate([task]))
    found.curve, found.answers = [Try(WHOLE, reached(whole[0]), whole[1])], [whole[0]]
    if found.unmatched is None:
        model.records[-1].matched = found.offsets
        tried(WHOLE, {**whole[0], **model.evaluate(fallen)}, matched=True)
        model.records[-1].matched = {}
    if found.unscaled is None:
        scaling = Scaling(model.adapter)  # type: ignore[arg-type]
        _scaled(scaling, lambda: model.evaluate(tested), tried)
    return found


def _scaled(
    scaling: Scaling, answers: Callable[[], Answers], tried: Callable[[Scales, Answers], Try]
) -> None:
    """Try the update at several scales."""

    def passes(*scales: float) -> bool:
        first, middle, last = scales
        scaling.put((first, middle, last))
        return not tried((first, middle, last), answers()).verdict.beyond

    low, high = 0.0, 1.0
    for _ in range(STEPS):
        scale = (low + high) / 2
        low, high = (scale, high) if passes(scale, scale, scale) else (low, scale)
    passing = [
        third for third in range(3) if passes(*(1.0 if i == third else low for i in range(3)))
    ]
    if len(passing) == 2:
        passes(*(1.0 if i in passing else low for i in range(3)))
    scaling.put(WHOLE)


def one_in_words(one: Try) -> str:
    """A repair, in words."""
    if one.matched:
        return "answers matched"
    return f"the update at {in_words(one.scales)}"


def in_words(scales: Sequence[float]) -> str:
    """A scale, or one of each third of the layers.

    >>> in_words([0.5, 0.5, 0.5]), in_words([1.0, 0.25, 0.25])
    ('0.5', '1 | 0.25 | 0.25')
    """
    values = [f"{scale:.3g}" for scale in scales]
    return values[0] if len(set(values)) == 1 else " | ".join(values)


def _worst(found: Verdict) -> Fall:
    return max(found.falls, key=lambda fall: fall.lost)
