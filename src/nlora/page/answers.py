"""Wrong answers that are worth reading: those that were right once first, of every kind a few."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nlora.continual.tasks import learned_tasks, only_tested
from nlora.evaluation.normalise import comparison
from nlora.page.material import Material
from nlora.page.measures import learned_at
from nlora.report.ledger import unpack
from nlora.report.runs import Run
from nlora.store.directory import ModelDirectory

OFF = "none of the labels"
FREE = "free text"
LOST, NEVER = "was right", "never right"

_OF_A_KIND = 6
"""Of answers that are wrong in the same way so many are shown."""

_MOST, _OF_A_RUN = 1500, 400
"""So many on a page, and of a run."""

_LONG = 400
"""Characters of a text or an answer."""


@dataclass(frozen=True)
class Wrong:
    """An answer of the model as it stands now. `became` is the label that it is, or why none."""

    label: str
    """The run's: its method."""
    task: str
    text: str
    right: str
    answer: str
    became: str
    once: str
    """Whether it was right after the task was learned."""
    alike: int
    """How many answers of the run are wrong in this way."""


def wrong_answers(runs: Sequence[Run], material: Material) -> list[Wrong]:
    """Of the first run of each method on each stream whose folder is there."""
    firsts: dict[tuple[Any, ...], tuple[Run, ModelDirectory]] = {}
    for run in runs:
        if run.error is None and (directory := material.model(run)) is not None:
            firsts.setdefault((run.budget, run.label, run.stream), (run, directory))
    if not firsts:
        return []
    several = len({run.stream for run, _ in firsts.values()}) > 1
    most = min(_OF_A_RUN, _MOST // len(firsts))
    return [
        wrong
        for run, directory in firsts.values()
        for wrong in _of(run, directory, f"{run.label}, {run.stream}" if several else run.label)[
            :most
        ]
    ]


def _of(run: Run, directory: ModelDirectory, label: str) -> list[Wrong]:
    """The wrong answers of one run, one of each kind after another."""
    records = directory.stages()
    if not records:
        return []
    known = [*learned_tasks(directory), *only_tested(directory)]
    tests, then = {data.name: data.test for data in known}, _right_then(run)
    kinds: dict[tuple[str, str, str, str], list[Wrong]] = defaultdict(list)
    counts: Counter[tuple[str, str, str, str]] = Counter()
    labels = {task["name"]: task.get("labels") for r in records for task in r.tasks}
    for task, answers in directory.predictions(records[-1]).items():
        if task not in tests:  # it will be learned later
            continue
        became = _Became(labels.get(task))
        before = then.get(task, [])
        for i, (answer, test) in enumerate(zip(answers, tests[task], strict=True)):
            if answer["correct"]:
                continue
            said = str(answer.get("text", ""))
            once = "" if i >= len(before) else LOST if before[i] else NEVER
            kind = (once, task, test.label if became.known else "", became(said))
            counts[kind] += 1
            if len(kinds[kind]) < _OF_A_KIND:
                text, right, said = map(_cut, (test.text, test.label, said))
                kinds[kind].append(Wrong(label, task, text, right, said, kind[3], once, 0))
    ordered = sorted(kinds, key=lambda kind: (kind[0] != LOST, -counts[kind]))
    return [
        replace(kinds[kind][i], alike=counts[kind])
        for first in (True, False)
        for i in range(_OF_A_KIND)
        for kind in ordered
        if (kind[0] == LOST) == first and i < len(kinds[kind])
    ]


def _cut(text: str) -> str:
    return text[:_LONG] + ("…" if len(text) > _LONG else "")


def _right_then(run: Run) -> Mapping[str, Sequence[int]]:
    """By task, which tests were answered right after it was learned, in their order."""
    stages = (run.row.get("answers") or {}).get("stages") or []
    return {
        task: unpack(stages[place][task]).tolist()
        for task, place in learned_at(run).items()
        if place < len(stages) and task in stages[place]
    }


class _Became:
    """Which label an answer is."""

    def __init__(self, labels: Sequence[str] | None) -> None:
        self.known = labels is not None
        self.compared = comparison(tuple(labels or ()))
        self.labels = {self.compared(label): label for label in labels or ()}

    def __call__(self, answer: str) -> str:
        return self.labels.get(self.compared(answer), OFF) if self.known else FREE
