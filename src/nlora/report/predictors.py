"""Which quantity predicts what is lost: rank correlations over runs and pairs of tasks."""

from collections.abc import Sequence

import numpy as np

from nlora.evaluation.ranks import (
    correlation,
    held_out,
    interval,
    numbered,
    ranks,
    ranks_within,
)
from nlora.report.falls import MEASURES, MOVED, SIZE, Fall, falls
from nlora.report.runs import Section
from nlora.report.table import Cell, Table, Value

_FEWEST = 12
"""Observations, below which a rank correlation says nothing."""

_NOTES = (
    "an observation is an earlier task in a later stage of a run: by how many points it fell "
    "there; ρ is Spearman's, positive where more of the quantity goes with a greater fall; "
    "intervals of 95 % by resampling orders with their seeds, and methods, each by itself",
    "within a pair: ranked among the observations of one ordered pair of tasks only, so that what "
    "sets tasks apart counts for nothing",
    f"given: the partial rank correlation, given {SIZE} or {MOVED}, over the observations that "
    "have both",
    "held out: R² of the fall in a pair of tasks, in either order, by a line through the other "
    "pairs' ranks; 0 is no better than the mean of these, below 0 worse",
    "collisions, overlaps and norms are of what the stages of the two tasks changed, over all "
    "matrices; runs whose tasks have models of their own lose nothing and are left out",
)


def predictors(section: Section, among: bool = False) -> Table | None:
    """What goes with the fall of an earlier task in a later stage; None where too little is known.

    `among` takes answers among the labels.
    """
    found = falls(section, among)
    measured = {
        name: row
        for name in MEASURES
        if (row := _row(name, [f for f in found if name in f.measured])) is not None
    }
    if not measured:
        return None
    columns = ["quantity", "falls", "runs", "ρ", "within a pair"]
    columns += [f"given {SIZE}", f"given {MOVED}", "held out"]
    rows = [[name, *cells] for name, cells in measured.items()]
    kind = "among labels" if among else "by the protocol"
    key = "predictors-among" if among else "predictors"
    title = f"What goes with the fall of an earlier task, {kind}. {section.title}"
    return Table(key, title, columns, rows, list(_NOTES))


def _row(name: str, found: Sequence[Fall]) -> list[Cell] | None:
    """None where the quantity does not vary, or there are too few."""
    x, y = _values(name, found), np.array([f.fall for f in found])
    if len(found) < _FEWEST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    data, methods = numbered([f.data for f in found]), numbered([f.method for f in found])
    pairs = numbered([(f.old, f.new) for f in found])
    either_way = numbered([frozenset((f.old, f.new)) for f in found])
    return [
        len(found),
        len({(f.data, f.method) for f in found}),
        _correlated(ranks(x), ranks(y), data, methods),
        _correlated(ranks_within(x, pairs), ranks_within(y, pairs), data, methods),
        *(None if name == other else _given(name, other, found) for other in (SIZE, MOVED)),
        _cell(held_out(x, y, either_way)),
    ]


def _correlated(a: np.ndarray, b: np.ndarray, *groupings: np.ndarray) -> Value | None:
    return _cell(correlation(a, b), interval(a, b, *groupings))


def _given(name: str, other: str, found: Sequence[Fall]) -> Value | None:
    both = [f for f in found if other in f.measured]
    if len(both) < _FEWEST:
        return None
    y = np.array([f.fall for f in both])
    return _cell(correlation(*map(ranks, (_values(name, both), y, _values(other, both)))))


def _values(name: str, found: Sequence[Fall]) -> np.ndarray:
    return np.array([f.measured[name] for f in found])


def _cell(value: float | None, spread: tuple[float, float] | None = None) -> Value | None:
    if value is None or not np.isfinite(value):
        return None
    low, high = spread or (None, None)
    return Value(value, low=low, high=high, form="+.2f")
