"""How far each earlier task fell in each later stage, and what was measured of the two."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from nlora.report.runs import Run, Section

Json = dict[str, Any]
Similar = dict[frozenset[str | None], Json]
"""Likenesses of two tasks by the hashes of their tests."""


ALTERED = {"scale", "size", "permuted"}
"""Settings that rows of `nlora study rescale` and `permute` have, and no run that was trained."""


@dataclass(frozen=True)
class Fall:
    """An ordered pair of tasks in one run: an old one, and the stage of a new one."""

    data: str
    """The order and the seed: runs that share these share tests, and often a first stage."""
    method: str
    old: str
    new: str
    before: float
    """Accuracy on the old task before the stage, per cent."""

    fall: float
    """By how many points it fell in the stage; below 0 where it rose."""

    measured: dict[str, float]
    """What could be measured of the pair, by the names of `MEASURES`."""


def falls(section: Section, among: bool = False) -> list[Fall]:
    """Of all runs whose stages learn a task each and that answer with one model.

    `among` takes answers among the labels. Runs whose later tasks have models of their own cannot
    lose what they have learned, and are left out; so are those of which nothing was trained, since
    another run's updates were altered.
    """
    similar = _similarities(section)
    found = []
    for run in section.runs:
        row = run.row
        needs = row.get("needs", {})
        apart = needs.get("task_identity") or needs.get("storage")
        altered = ALTERED & row["configuration"]["settings"].keys()
        if run.error is not None or run.untrained or apart or altered:
            continue
        if row["stages"] != run.trained:
            continue
        matrix = (row.get("among_labels", {}) if among else row).get("accuracy_matrix")
        found += _of_run(run, matrix or [], similar)
    return found


def _of_run(run: Run, matrix: list[list[float | None]], similar: Similar) -> Iterator[Fall]:
    tasks, columns = run.trained, run.row["tasks"]
    for stage in range(1, len(matrix)):
        for task, old in enumerate(tasks[:stage]):
            column = columns.index(old)
            before, after = matrix[stage - 1][column], matrix[stage][column]
            if before is not None and after is not None:
                new = tasks[stage]
                seen = _Seen(run.row, task, stage, old, new, before, similar)
                values = {name: measure(seen) for name, measure in MEASURES.items()}
                known = {name: value for name, value in values.items() if value is not None}
                data = f"{run.stream} {run.seed}"
                yield Fall(data, run.label, old, new, before, before - after, known)


@dataclass(frozen=True)
class _Seen:
    """What the measures look at."""

    row: Json
    task: int
    stage: int
    old: str
    new: str
    before: float
    similar: Similar

    @property
    def geometry(self) -> Json | None:
        """Of what each stage changed."""
        found = self.row.get("geometry")
        if not found or "error" in found:
            return None
        return found.get("steps") or (None if found["continues"] else found)


Measure = Callable[[_Seen], float | None]


def _pair(name: str, magnitude: bool = False) -> Measure:
    """Of the old task's update and the new one: a sum over matrices, else a mean."""

    def measure(seen: _Seen) -> float | None:
        found = _named((seen.geometry or {}).get("pairs"), seen)
        value = None if found is None else _value(found.get(name))
        return abs(value) if magnitude and value is not None else value

    return measure


def _rate(threshold: int, opposing: bool = False) -> Measure:
    """Collisions, the mean over matrices; of them those of opposite sign."""

    def measure(seen: _Seen) -> float | None:
        at = (seen.geometry or {}).get("collisions") or []
        found = _named(at[threshold].get("pairs") if len(at) > threshold else None, seen)
        value = None if found is None else _value(found["collision_rate"])
        if value is None or not opposing or not value:  # where none meet, none are opposite
            return value
        share = (found or {}).get("opposing")
        return None if share is None else value * share

    return measure


def _own(name: str) -> Measure:
    """Of the new task's update alone."""

    def measure(seen: _Seen) -> float | None:
        each = (seen.geometry or {}).get("per_adapter") or []
        return next((_value(a.get(name)) for a in each if a.get("name") == seen.new), None)

    return measure


def _kl(of_old: bool) -> Measure:
    """KL(before ‖ after) of the stage on one of the two tasks, nats per answer token."""

    def measure(seen: _Seen) -> float | None:
        matrix = seen.row.get("kl", {}).get("matrix") or []
        column = seen.row["tasks"].index(seen.old if of_old else seen.new)
        return matrix[seen.stage][column] if seen.stage < len(matrix) else None

    return measure


def _moved(name: str) -> Measure:
    """How far the stage moved the hidden states of the old task's texts, or pulled another way than
    the old task would: 1 less a likeness."""

    def measure(seen: _Seen) -> float | None:
        tasks = seen.row.get("explained", {}).get("tasks", {})
        stages = tasks.get(seen.old, {}).get("moved", ())
        found = next((m.get(name) for m in stages if m["stage"] == seen.stage + 1), None)
        return None if found is None else 1 - found

    return measure


def _similarity(name: str) -> Measure:
    def measure(seen: _Seen) -> float | None:
        tests = seen.row.get("tests", {})
        key = frozenset((tests.get(seen.old), tests.get(seen.new)))
        return seen.similar.get(key, {}).get(name)

    return measure


MEASURES: dict[str, Measure] = {
    "collision rate, 0.1rms": _rate(0),
    "collision rate, 1e-3": _rate(1),
    "collisions of opposite sign": _rate(0, opposing=True),
    "OO": _pair("oo"),
    "AWOM": _pair("awom_input_fro"),
    "AWOM, outputs": _pair("awom_output_fro"),
    "|⟨ΔW_i, ΔW_t⟩|": _pair("inner_product", magnitude=True),
    "|cosine|": _pair("cosine", magnitude=True),
    "‖ΔW_i ⊙ ΔW_t‖² (ELLA)": _pair("entry_overlap"),
    "input overlap": _pair("input_overlap"),
    "output overlap": _pair("output_overlap"),
    "‖ΔW_t‖_F": _own("frobenius"),
    "‖ΔW_t‖₂": _own("spectral_norm"),
    "‖ΔW_t‖₁": _own("l1"),
    "‖ΔW_t‖_*": _own("nuclear_norm"),
    "effective rank": _own("effective_rank"),
    "density (GSR)": _own("gsr"),
    "KL on the new task": _kl(of_old=False),
    "KL on the old task": _kl(of_old=True),
    "states of old texts, 1 − cosine": _moved("cosine"),
    "states of old texts, 1 − CKA": _moved("cka"),
    "gradients, 1 − cosine": _moved("gradients"),
    "texts alike": _similarity("texts"),
    "labels shared": _similarity("labels"),
    "accuracy before": lambda seen: seen.before,
    "stages since it was learned": lambda seen: float(seen.stage - seen.task),
}
SIZE, MOVED = "‖ΔW_t‖_F", "KL on the new task"


def _named(pairs: list[Json] | None, seen: _Seen) -> Json | None:
    both = {seen.old, seen.new}
    return next((pair for pair in pairs or () if {pair["a"], pair["b"]} == both), None)


def _value(measured: Json | None) -> float | None:
    """A measure of updates: summed over matrices, or where there is no sum the mean."""
    if measured is None:
        return None
    return measured.get("sum", measured["mean"])


def _similarities(section: Section) -> Similar:
    """By the hashes of two tasks' tests, so that one row tells it for all on the same texts."""
    found: Similar = {}
    for run in section.runs:
        tests = run.row.get("tests", {})
        for pair in run.row.get("alike", ()):
            found[frozenset((tests.get(pair["a"]), tests.get(pair["b"])))] = pair
    return found
