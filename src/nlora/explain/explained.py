"""What is found of a model: readings, losses in parts, and what is left of the way, as JSON.

All in per cent: of test examples, and of a way where it says `kept`.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from nlora.explain.asked import Learned
from nlora.explain.parts import (
    Reading,
    Way,
    accuracies,
    by_example,
    difference,
    kept,
    length,
    parts,
)
from nlora.explain.sources import TRANSDUCTIVE, no_old_text
from nlora.report.explained import matched_by

Json = dict[str, Any]
ZEROS = BASE, BEFORE = "base", "before"
"""Models that never learned a task: the base model, and the one that the task came to, which for
the first one is the base model, too."""

AMONG = "among"
"""In place of a source of offsets: the most likely label, with none."""


class Found:
    """A task with labels: its readings by stage, and the matched accuracies that ways are made of.

    `names` are the stages', `moved` says how far each later one moved the task's hidden states.
    """

    def __init__(
        self,
        known: Learned,
        read: Mapping[int, Reading],
        names: Mapping[int, str],
        moved: Mapping[int, Mapping[str, float]],
    ) -> None:
        self.known = known
        self.read = read
        self.names = names
        self.moved = moved
        self.then = read[known.stage]
        self.by = matched_by(self.then.matched)
        right = {
            (stage, source): answers
            for stage, reading in read.items()
            for source, answers in {AMONG: reading.among, **reading.matched}.items()
        }
        self.matched = accuracies(known.data.name, right)

    def way(self, zero: str, stage: int, by: str, source: str | None = None) -> Way:
        """From never learned to right after learning, both matched by one source, to a stage's
        answers, matched by any."""
        never = 0 if zero == BASE else self.known.stage - 1
        points = ((never, by), (self.known.stage, by), (stage, source or by))
        return Way(*(self.matched[point] for point in points))

    def parts(self, stage: int, by: str, probe: bool = True) -> dict[str, float | None]:
        """The loss since the task was learned, in per cent; as if there were no probe without."""
        split = parts(self.then, self.read[stage], by, probe)
        return {name: None if v is None else 100 * v for name, v in split.items()}

    def probed(self, stage: int) -> bool:
        """Whether there is a probe, then and after a stage."""
        return self.then.probe is not None and self.read[stage].probe is not None

    def to_json(self) -> Json:
        """All that is found of the task."""
        known = self.known
        ways = {zero: length(self.way(zero, known.stage, self.by)) for zero in ZEROS}
        return {
            "labels": len(known.labels),
            "examples": len(known.data.test),
            "learned": self.names[known.stage],
            "readings": [
                {
                    "after": self.names[stage],
                    "stage": stage,
                    "when": _when(known, stage),
                    **_shown(reading),
                }
                for stage, reading in self.read.items()
            ],
            "way": {zero: estimate.to_json() for zero, estimate in ways.items()},
            "lost": [self._lost(stage) for stage in known.later],
            "moved": [
                {"after": self.names[stage], "stage": stage, **how}
                for stage, how in self.moved.items()
            ],
        }

    def _lost(self, stage: int) -> Json:
        now, name = self.read[stage], self.known.data.name
        split = self.parts(stage, self.by)
        likely = self.matched[stage, AMONG]
        return {
            "after": self.names[stage],
            "stage": stage,
            "matched_by": self.by,
            "loss": sum(part for part in split.values() if part is not None),
            "parts": split,
            "by_example": by_example(self.then, now, self.by),
            "kept": {
                zero: {
                    source: kept({name: self.way(zero, stage, self.by, source)}).to_json()
                    for source in now.matched
                }
                for zero in ZEROS
            },
            "helps": {
                source: difference(likely, self.matched[stage, source]).to_json()
                for source in now.matched
            },
        }


def over_tasks(tasks: Sequence[Found], last: int) -> Json | None:
    """The means over the tasks that were learned before the last stage, and what is left of all
    their ways together; None where there are none.

    All are treated alike, or means would mix what is counted in two ways: matched by a source that
    all of them have, and with a probe if all have one.
    """
    earlier = [task for task in tasks if last in task.known.later]
    if not earlier:
        return None
    by = matched_by(set.intersection(*(set(task.then.matched) for task in earlier)))
    probe = all(task.probed(last) for task in earlier)
    moments = {
        "never": [task.read[0] for task in earlier],
        "then": [task.then for task in earlier],
        "now": [task.read[last] for task in earlier],
    }
    return {
        "tasks": [task.known.data.name for task in earlier],
        **{moment: _means([_shown(one) for one in some]) for moment, some in moments.items()},
        "parts": _means([task.parts(last, by, probe) for task in earlier]),
        "kept": {zero: _kept(earlier, last, zero, by) for zero in ZEROS},
    }


def all_tasks(tasks: Sequence[Found], last: int) -> Json:
    """The means over all tasks after the last stage, that of the newest among them."""
    now = [task.read[last] for task in tasks if last in task.read]
    return _means([_shown(reading) for reading in now]) if now else {}


def _kept(earlier: Sequence[Found], last: int, zero: str, by: str) -> Json:
    """What is left of the way over these tasks, by source of the offsets now."""
    sources = set.intersection(*(set(task.read[last].matched) for task in earlier))
    return {
        source: kept({t.known.data.name: t.way(zero, last, by, source) for t in earlier}).to_json()
        for source in sorted(sources)
    }


def _when(known: Learned, stage: int) -> str:
    if stage == 0:
        return "never learned"
    if stage < known.stage:
        return "before it"
    return "right after it" if stage == known.stage else "later"


def _shown(reading: Reading) -> Json:
    """Shares of right answers under each reading."""

    def share(right: np.ndarray | None) -> float | None:
        return None if right is None else 100 * float(np.mean(right))

    return {
        "free": share(reading.free),
        "off_list": None if reading.listed is None else 100 - 100 * float(np.mean(reading.listed)),
        "among": share(reading.among),
        "matched": {source: share(right) for source, right in reading.matched.items()},
        "probe": share(reading.probe),
    }


def _means(rows: list[Json]) -> Json:
    """The mean of each number that all rows have; None for others."""
    found: Json = {}
    for key in rows[0]:
        values = [row.get(key) for row in rows]
        if isinstance(values[0], dict):
            found[key] = {k: v for k, v in _means(values).items() if v is not None}  # type: ignore[arg-type]
        else:
            found[key] = None if None in values else fmean(values)  # type: ignore[arg-type]
    return found


def source_marks(source: str) -> str:
    """What must be said of a source in a table."""
    if source == TRANSDUCTIVE:
        return "upper bound"
    return "no old text" if no_old_text(source) else ""
