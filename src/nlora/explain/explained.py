"""What is found of a model: readings, losses in parts, and what is left of the way, as JSON.

All in per cent: of test examples, and of a way where it says `kept`.
"""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

import numpy as np

from nlora.explain.asked import Learned
from nlora.explain.parts import Estimate, Reading, Way, by_example, kept, length, parts
from nlora.explain.sources import TRANSDUCTIVE, no_old_text

Json = dict[str, Any]
BASE, BEFORE = "base", "before"
"""Models that never learned a task: the base model, and the one that the task came to."""


def matched_by(reading: Reading) -> str:
    """The source of offsets by which parts are counted: the own training texts, if there are any.

    Else the test texts themselves, an upper bound.
    """
    return "train" if "train" in reading.matched else TRANSDUCTIVE


def task_found(known: Learned, read: Mapping[int, Reading], names: Mapping[int, str]) -> Json:
    """All that is found of a task with labels. `names` are the stages'."""
    then = read[known.stage]
    ways = {zero: length(_way(known, read, zero, then), known.data.name) for zero in _zeros(known)}
    return {
        "labels": len(known.labels),
        "examples": len(known.data.test),
        "learned": names[known.stage],
        "readings": [
            {"after": names[stage], "stage": stage, "when": _when(known, stage), **_shown(reading)}
            for stage, reading in read.items()
        ],
        "way": {zero: estimate.to_json() for zero, estimate in ways.items()},
        "lost": [_lost(known, read, stage, names[stage]) for stage in known.later],
    }


def over_tasks(
    found: Mapping[str, tuple[Learned, Mapping[int, Reading]]], last: int
) -> Json | None:
    """The means over the tasks that were learned before the last stage, and what is left of all
    their ways together; None where there are none."""
    earlier = {name: pair for name, pair in found.items() if last in pair[0].later}
    if not earlier:
        return None
    moments = {
        "never": [read[0] for _, read in earlier.values()],
        "then": [read[known.stage] for known, read in earlier.values()],
        "now": [read[last] for _, read in earlier.values()],
    }
    split = [
        _parts(read[known.stage], read[last], matched_by(read[last]))
        for known, read in earlier.values()
    ]
    return {
        "tasks": list(earlier),
        **{moment: _means([_shown(one) for one in some]) for moment, some in moments.items()},
        "parts": _means(split),
        "kept": {
            zero: {
                source: estimate.to_json()
                for source, estimate in _kept(earlier, last, zero).items()
            }
            for zero in (BASE, BEFORE)
        },
    }


def all_tasks(found: Mapping[str, tuple[Learned, Mapping[int, Reading]]], last: int) -> Json:
    """The means over all tasks after the last stage, that of the newest among them."""
    now = [read[last] for known, read in found.values() if last in (known.stage, *known.later)]
    return _means([_shown(reading) for reading in now]) if now else {}


def _kept(
    earlier: Mapping[str, tuple[Learned, Mapping[int, Reading]]], last: int, zero: str
) -> dict[str, Estimate]:
    """What is left of the way over these tasks, by source of the offsets now."""
    some = {n: (k, r) for n, (k, r) in earlier.items() if zero == BASE or k.before is not None}
    sources = (
        set.intersection(*(set(read[last].matched) for _, read in some.values())) if some else ()
    )
    return {
        source: kept({n: _way(k, r, zero, r[last], source) for n, (k, r) in some.items()})
        for source in sorted(sources)
    }


def _lost(known: Learned, read: Mapping[int, Reading], stage: int, name: str) -> Json:
    """What a task has lost after a later stage."""
    then, now = read[known.stage], read[stage]
    source = matched_by(now)
    split = _parts(then, now, source)
    return {
        "after": name,
        "stage": stage,
        "matched_by": source,
        "loss": sum(part for part in split.values() if part is not None),
        "parts": split,
        "by_example": by_example(then, now, source),
        "kept": {
            zero: {
                by: kept({known.data.name: _way(known, read, zero, now, by)}).to_json()
                for by in now.matched
            }
            for zero in _zeros(known)
        },
    }


def _parts(then: Reading, now: Reading, source: str) -> dict[str, float | None]:
    return {n: None if v is None else 100 * v for n, v in parts(then, now, source).items()}


def _zeros(known: Learned) -> list[str]:
    return [BASE] if known.before is None else [BASE, BEFORE]


def _way(
    known: Learned, read: Mapping[int, Reading], zero: str, now: Reading, source: str | None = None
) -> Way:
    """From never learned to right after learning, both matched alike, to now by any source."""
    by = matched_by(read[known.stage])
    never = read[0 if zero == BASE or known.before is None else known.before]
    return Way(never.matched[by], read[known.stage].matched[by], now.matched[source or by])


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
