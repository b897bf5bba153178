"""The guard: whether a stage may stand, by what earlier and watched tasks lose, answer by answer.

The model is compared with itself before the stage, on the same tests. A fall counts where the
paired bootstrap interval (`evaluation.statistics`) of what is lost lies beyond the bound, so that
few tests do not decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from nlora.data.balance import label_counts, majority
from nlora.errors import NloraError, option, setting
from nlora.evaluation.metrics import each
from nlora.evaluation.statistics import estimates
from nlora.plan.budgets import value_at

if TYPE_CHECKING:
    from nlora.data.task import TaskData
    from nlora.evaluation.answers import Prediction
    from nlora.plan.resolve import Plan

Answers = Mapping[str, "Sequence[Prediction]"]
"""By task, in the order of its tests."""

RepairMode = Literal["offer", "auto", "off"]
REPAIRS: tuple[str, ...] = get_args(RepairMode)

FEWEST = 6
"""Answers that must have become worse before a fall counts: all of five that change do so by chance
alone once in 32 times (a sign test), which the bootstrap does not see."""
DIGITS = 5
"""Of points: what lies at the bound is not beyond it, whatever floating point makes of it."""
SHOWN = 3
"""Answers that turned wrong, as examples of a task."""


@dataclass(frozen=True)
class Guard:
    """What a stage may cost."""

    bound: float = 2.0
    """Points that a task may lose."""
    repair: RepairMode = "offer"
    """Whether a stage that costs too much is repaired (`continual.repair`): not at all, to be
    accepted by hand, or at once where the new task keeps enough."""

    def __post_init__(self) -> None:
        if not 0 <= self.bound <= 100:
            raise NloraError(
                f"{option('max_forgetting')} takes points from 0 to 100, not {self.bound:g}"
            )


@dataclass(frozen=True)
class Fall:
    """What a task loses by a stage, in points, with the interval of that."""

    task: str
    tests: int
    before: float
    now: float
    lost: float
    low: float
    high: float
    too_far: bool


@dataclass(frozen=True)
class Turned:
    """An answer that was right before the stage and is wrong now."""

    text: str
    label: str
    before: str
    now: str


@dataclass
class Verdict:
    """What a stage costs."""

    bound: float
    falls: list[Fall]
    turned: dict[str, list[Turned]] = field(default_factory=dict)
    """Examples, by task that falls too far."""
    advice: list[str] = field(default_factory=list)
    """What could be tried instead, where one does."""

    @property
    def too_far(self) -> list[str]:
        """The tasks that fall too far."""
        return [fall.task for fall in self.falls if fall.too_far]

    @property
    def beyond(self) -> list[str]:
        """The tasks whose interval lies beyond the bound, however few answers became worse: what
        chance may excuse in a stage recommends no repair of one that is refused."""
        return [fall.task for fall in self.falls if fall.low > self.bound]

    @property
    def within(self) -> bool:
        """Whether no task lost more than the bound, as it was measured, whatever chance may be."""
        return all(fall.lost <= self.bound for fall in self.falls)

    def told(self) -> list[str]:
        """One line for each task: what it lost, and whether that is too much, or cannot be told."""
        return [_in_words(fall, self.bound) for fall in self.falls]

    def untold(self) -> list[str]:
        """One line for each task that lost more than the bound, of too few tests to refuse it."""
        return [
            _in_words(fall, self.bound)
            for fall in self.falls
            if fall.lost > self.bound and not fall.too_far
        ]

    def to_json(self) -> dict[str, Any]:
        """The verdict as JSON, for the stage's record."""
        return asdict(self)


def recorded(found: Mapping[str, Any]) -> Verdict:
    """The verdict that a stage's record has, without examples and advice."""
    return Verdict(found["bound"], [Fall(**fall) for fall in found["falls"]])


def _in_words(fall: Fall, bound: float) -> str:
    moved = f"{abs(fall.lost):.1f} points {'gained' if fall.lost < 0 else 'lost'}"
    said = f"{fall.task}: {moved} of {fall.tests} tests"
    if fall.lost <= bound:
        return said
    if fall.too_far:
        return f"{said}, more than {bound:g}"
    return f"{said}, too few to tell whether more than {bound:g} are lost; more test rows would"


class SetAside(NloraError):
    """A stage costs too much, and is not in force. `found` is its verdict, as its record has it."""

    def __init__(self, place: object, name: str, found: dict[str, Any]) -> None:
        self.name, self.found = name, found
        falls = [fall for fall in found["falls"] if fall["too_far"]]
        lost = ", ".join(f"'{fall['task']}' {fall['lost']:.1f} points" for fall in falls)
        super().__init__(
            f"'{name}' is not in force: with it the model loses {lost}; `nlora accept {place}` "
            f"lets it stand, `nlora discard {place}` removes it"
        )


def verdict(before: Answers, now: Answers, tasks: Sequence[TaskData], bound: float) -> Verdict:
    """What the tasks that were answered before lose, and whether that is more than `bound` points.

    Tests that came since are at the end of a task's, and count for nothing here.
    """
    metrics = {data.name: data.task.metric for data in tasks}
    pairs = {task: (rows, now[task][: len(rows)]) for task, rows in before.items() if task in now}
    scores = {
        task: tuple(np.array(each(metrics[task], rows)) for rows in pair)
        for task, pair in pairs.items()
    }
    lost = {task: {("", 0): {task: then - after}} for task, (then, after) in scores.items()}
    falls = []
    for task, estimate in estimates(lost).items():
        mean, low, high = (round(points, DIGITS) for points in estimate)
        then, after = scores[task]
        worse = int((then > after).sum())
        falls.append(
            Fall(
                task,
                len(then),
                100 * float(then.mean()),
                100 * float(after.mean()),
                mean,
                low,
                high,
                too_far=worse >= FEWEST and low > bound,
            )
        )
    found = Verdict(bound, falls)
    found.turned = {task: _turned(scores[task], *pairs[task]) for task in found.too_far}
    return found


def _turned(
    scores: tuple[np.ndarray, ...], before: Sequence[Prediction], now: Sequence[Prediction]
) -> list[Turned]:
    """The answers that lost most, the first ones of several alike."""
    lost = scores[0] - scores[1]
    worst = [int(i) for i in np.argsort(-lost, kind="stable")[:SHOWN] if lost[i] > 0]
    return [Turned(now[i].source, now[i].label, before[i].text, now[i].text) for i in worst]


def advice(plan: Plan, stage: int, name: str, found: Verdict) -> list[str]:
    """What could be tried in place of a stage of the task `name` that costs too much."""
    settings, method = plan.settings(), plan.method
    epochs, rate = (value_at(settings[name], stage) for name in ("epochs", "learning_rate"))
    watched = {data.name: data for data in plan.stream if data.only_tested}
    lines = [
        f"another task to watch: {line}"
        for fall in found.falls
        if fall.too_far and fall.task in watched
        if (line := at_chance(watched[fall.task], fall.before))
    ]
    lines += [
        f"a look at the new labels: after them '{name}' itself answers its earlier tests otherwise"
        if name in found.too_far
        else "",
        f"fewer epochs: {setting('epochs', epochs // 2)}" if epochs > 1 else "",
        f"a smaller learning rate: {setting('learning_rate', rate / 2)}",
    ]
    weight = method.own_weight()
    if weight is not None:
        value = value_at(settings[weight], stage)
        if value and not isinstance(value, str):  # `auto` finds its own
            lines.append(f"a stronger penalty: {setting(weight, 2 * value)}")
    else:
        lines.append(f"a penalty: a model begun with {option('method', 'n-lora')}, or ewc")
    if not method.needs_old_data:
        lines.append(
            f"replay: a model begun with {option('method', 'replay')} keeps examples of each task"
        )
    if not (method.routes_by_input or method.needs_task_id):
        lines.append(
            f"routing: a model begun without {option('method')} keeps each task's own adapter, and "
            "finds it by the text"
        )
    return [line for line in lines if line]


def at_chance(data: TaskData, accuracy: float) -> str | None:
    """What to say of a task that is answered no better than by one label for all; None of others.

    What such a task loses may be bias alone.
    """
    if data.task.labels is None or data.task.metric not in (None, "exact", "accuracy"):
        return None
    constant = 100 * (majority(label_counts(data.test, data.task.labels)) or 0.0)
    if accuracy > constant:
        return None
    return (
        f"'{data.name}' is at {accuracy:.1f} %, and one label for all would be right in "
        f"{constant:.1f} %, so the model hardly knows it and what it loses may be bias alone"
    )
