"""`results.json`: what the committed stages say together."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, Literal

from nlora import processes
from nlora.continual.tasks import titles
from nlora.evaluation.matrix import FewMeasured, Row, average_accuracy, summary
from nlora.store.directory import ModelDirectory, StageRecord
from nlora.store.records import taken_out

MOST = 1_000_000
"""Entries of a matrix that `results.json` has. The records have all that was measured."""


def results(directory: ModelDirectory, tasks: Sequence[str], method: str) -> dict[str, Any]:
    """Accuracies (unrounded per cent, None where not measured) and all that follows from them.

    Row k of `accuracy_matrix` is measured after stage k, its columns are `tasks`. Metrics are over
    the tasks learned so far, without those that were taken out; a task that was learned again has a
    row for each stage and one column, and they compare answers to the tests that each stage
    brought. A method that trains all tasks in
    one stage has one row and neither learning accuracy nor forgetting nor transfer. `routing`,
    where a router chooses, is what it took for what at the last stage. An adapter of which nobody
    said what it knows has a row and counts in no metric. Tasks that are only tested have columns,
    and what they lost is in `only_tested`; the metrics leave them out. `among_labels` has the same
    matrix and metrics where the answer is the most likely label, `off_list` the share of answers
    that are no label; both are of tasks with labels, which they name (`averaged`) where others have
    none. `kl`, where it was measured, is how far each stage moved the model. A matrix of more than
    `MOST` entries is left out (`[]`); the metrics are there.
    """
    kept = directory.stages(), directory.zero_shot(), directory.watched()
    return results_of(*kept, tasks, method)


def write_results(directory: ModelDirectory, tasks: Sequence[str], method: str) -> dict[str, Any]:
    """Write `results`, by the main process alone; they are returned."""
    found = results(directory, tasks, method)
    processes.on_main(lambda: directory.write_results(found))
    return found


def current(directory: ModelDirectory) -> dict[str, Any]:
    """`results.json`, or what it is to be: who committed the last stage may have been killed before
    writing it. Raises NloraError where there are no results yet, or they cannot be read."""
    records, zero = directory.stages(), directory.zero_shot()
    there = directory.undone.results().is_file()
    if there or not (records or zero):
        found = directory.results()
        watched = {task["name"] for record in directory.watched() for task in record.tasks}
        if len(found["stages"]) == len(records) and watched <= set(found["tasks"]):
            return found
    return results(directory, columns(directory, records, zero), directory.config()["method"])


def bring_up(directory: ModelDirectory) -> dict[str, Any]:
    """Write `results.json` if it is not there, or behind the stages; `current`. Under the lock."""
    found = current(directory)
    directory.write_results(found)
    return found


def told(directory: ModelDirectory, method: str) -> dict[str, float]:
    """What trackers get after a stage: its metrics as `results.json` names them, `accuracy/TASK`,
    and `off_list/TASK`."""
    records, zero = directory.stages(), directory.zero_shot()
    found = results(directory, columns(directory, records, zero), method)
    names = ("average_accuracy", "learning_accuracy", "forgetting", "backward_transfer")
    by_task = {"accuracy": records[-1].accuracy, "off_list": records[-1].off_list}
    return {
        **{name: found[name] for name in names if found[name] is not None},
        **{f"{what}/{task}": v for what, values in by_task.items() for task, v in values.items()},
    }


def results_of(
    records: Sequence[StageRecord],
    zero: StageRecord | None,
    watched: Sequence[StageRecord],
    tasks: Sequence[str],
    method: str,
) -> dict[str, Any]:
    """`results` of these records; `watched` are those of tasks that `learn` was told to test."""
    everything = [*([zero] if zero else []), *records]
    matrix = _matrix(records, tasks, "accuracy")
    standing = in_force(records)
    learned = list(dict.fromkeys(t["name"] for record in standing for t in record.tasks))
    of_a_task = [record for record in standing if record.tasks or _takes_out(record)]
    if all(len(record.tasks) <= 1 for record in records):
        metrics = _over_stages(of_a_task, zero, "accuracy", _taken_out_at(records))
    else:
        metrics = summary([], None)
    metrics["average_accuracy"] = average_accuracy([_row(r, learned) for r in of_a_task[-1:]])
    places = {name: place for place, name in enumerate(tasks)}
    with_labels = {name for record in everything for name in record.off_list}
    listed = [places[name] for name in learned or tasks if name in with_labels]
    some = {} if len(listed) == len(learned or tasks) else {"averaged": [tasks[c] for c in listed]}
    untested = [*([zero] if zero else []), *watched]
    names = [(record, task["name"]) for record in untested for task in record.tasks]
    firsts = {name: record.accuracy.get(name) for record, name in names if name not in learned}
    untrained = {n: _drop(firsts[n], everything, n) for n in tasks if n in firsts}
    return {
        "method": method,
        "tasks": list(tasks),
        "stages": titles(records),
        "zero_shot": _row(zero, tasks) if zero else None,
        "accuracy_matrix": matrix,
        **metrics,
        **_among_labels(records, zero, tasks, listed, len(listed) == len(learned), some),
        **_off_list(records, zero, tasks, listed, some),
        **_moved(records, tasks),
        **({"only_tested": untrained} if untrained else {}),
        **({"routing": records[-1].notes["routing"]} if _routed(records) else {}),
        "seconds": sum(sum(record.seconds.values()) for record in everything),
        "peak_memory_bytes": max((r.peak_memory_bytes for r in everything), default=0),
    }


def in_force(records: Sequence[StageRecord]) -> list[StageRecord]:
    """The stages without those that were taken out again, which count in no metric.

    A stage that takes one out has scores and no task, and counts as long as it is the last.
    """
    out = taken_out(records)
    return [r for r in records if r.folder not in out and (r is records[-1] or not _takes_out(r))]


def _takes_out(record: StageRecord) -> bool:
    return "taken_out" in record.notes


def _taken_out_at(records: Sequence[StageRecord]) -> dict[str, int]:
    """The number of the stage that has last taken a task out, by task."""
    return {r.notes["taken_out"].get("task", ""): r.index for r in records if _takes_out(r)}


def columns(
    directory: ModelDirectory, records: Sequence[StageRecord], zero: StageRecord | None
) -> list[str]:
    """The tasks that the results of these records are about: a run's, or what was learned."""
    planned = list(directory.config().get("tasks") or [])
    learned = [t["name"] for record in records for t in record.tasks]
    watched = [t["name"] for record in directory.watched() for t in record.tasks]
    tested = [t["name"] for t in zero.tasks] if zero else []
    first = planned if set(learned) <= set(planned) else [*learned, *tested]
    return list(dict.fromkeys([*first, *watched]))


def _among_labels(
    records: Sequence[StageRecord],
    zero: StageRecord | None,
    tasks: Sequence[str],
    listed: Sequence[int],
    all_listed: bool,
    some: dict[str, Any],
) -> dict[str, Any]:
    """The matrix and its metrics where the answer is the most likely label, if it was measured."""
    if not any(r.among_labels for r in [*records, *([zero] if zero else [])]):
        return {}
    matrix = _matrix(records, tasks, "among_labels")
    zero_shot = [zero.among_labels.get(task) for task in tasks] if zero else None
    standing = in_force(records)
    one_each = all_listed and all(len(r.tasks) == 1 or _takes_out(r) for r in standing)
    metrics = summary([], None)
    if one_each:
        metrics = _over_stages(standing, zero, "among_labels", _taken_out_at(records))
    rows = [[r.among_labels.get(tasks[c]) for c in listed] for r in standing[-1:]]
    metrics["average_accuracy"] = average_accuracy(rows)
    return {"among_labels": {"zero_shot": zero_shot, "accuracy_matrix": matrix, **metrics, **some}}


def by_tests(
    record: StageRecord, first: Mapping[str, str], what: Literal["accuracy", "among_labels"]
) -> dict[tuple[str, str], float | None]:
    """What a record says of each task, by task and the folder of the stage that brought the tests.

    `first` has the folder of each task's first stage, which brought all the tests of a task with
    one stage. Only figures under one key are answers to the same tests.
    """
    found: dict[tuple[str, str], float | None] = {}
    for task, value in getattr(record, what).items():
        if task in record.parts:
            parts = record.parts[task].items()
            found |= {(task, folder): getattr(part, what) for folder, part in parts}
        elif task in first:
            found[task, first[task]] = value
    return found


def _over_stages(
    records: Sequence[StageRecord],
    zero: StageRecord | None,
    what: Literal["accuracy", "among_labels"],
    out: Mapping[str, int],
) -> dict[str, float | None]:
    """The metrics of stages with a task each, by the tests that each stage brought.

    A task that was learned again has a column for each of its stages, since later tests say nothing
    of earlier models; all its columns count as one task. What was measured of a task before the
    stage that took it `out` was on tests that went with it.
    """
    columns = [(record.tasks[0]["name"], record.folder) for record in records if record.tasks]
    first = dict(reversed(columns))
    places = {column: place for place, column in enumerate(columns)}

    def row(record: StageRecord) -> Row:
        own = {task: folder for task, folder in first.items() if out.get(task, 0) <= record.index}
        found = by_tests(record, own, what).items()
        measured = {places[key]: value for key, value in found if key in places}
        return FewMeasured(measured, len(columns))

    parts = records[-1].parts if records else {}
    sizes = [parts[t][f].rows if f in parts.get(t, {}) else 1 for t, f in columns]
    return summary(
        [row(record) for record in records],
        row(zero) if zero else None,
        [(task, size) for (task, _), size in zip(columns, sizes, strict=True)],
    )


def _off_list(
    records: Sequence[StageRecord],
    zero: StageRecord | None,
    tasks: Sequence[str],
    listed: Sequence[int],
    some: dict[str, Any],
) -> dict[str, Any]:
    """Per cent of answers that are none of the labels, by stage and task, and of the last stage."""
    if not listed:
        return {}
    matrix = _matrix(records, tasks, "off_list")
    average = average_accuracy([[r.off_list.get(tasks[c]) for c in listed] for r in records[-1:]])
    zero_shot = [zero.off_list.get(task) for task in tasks] if zero else None
    return {"off_list": {"zero_shot": zero_shot, "matrix": matrix, "average": average, **some}}


def _moved(records: Sequence[StageRecord], tasks: Sequence[str]) -> dict[str, Any]:
    """KL(before ‖ after) by stage and task, and its means: on a stage's own tasks, on those that
    were learned before it, and on those that are only tested. Each stage counts the same."""
    if not any(record.kl for record in records):
        return {}
    kinds: dict[str, list[float]] = {"own": [], "earlier": [], "only_tested": []}
    learned: set[str] = set()
    for record in records:
        own = {known["name"] for known in record.tasks}
        for kind, names in (
            ("own", record.kl.keys() & own),
            ("earlier", record.kl.keys() & learned - own),
            ("only_tested", record.kl.keys() - learned - own),
        ):
            if names:
                kinds[kind].append(fmean(record.kl[name] for name in names))
        learned |= own
    means = {kind: fmean(values) if values else None for kind, values in kinds.items()}
    return {"kl": {"matrix": _matrix(records, tasks, "kl"), **means}}


def _drop(
    before: float | None, records: Sequence[StageRecord], task: str
) -> dict[str, float | None]:
    """What a task that nobody trains had when it was added, has now, and has lost."""
    now = records[-1].accuracy.get(task) if records else before
    lost = None if before is None or now is None else before - now
    return {"before": before, "now": now, "lost": lost}


def _routed(records: Sequence[StageRecord]) -> bool:
    return bool(records) and "routing" in records[-1].notes


def _matrix(records: Sequence[StageRecord], tasks: Sequence[str], what: str) -> list[Row]:
    """What each stage measured of each task; none where it would have more than `MOST` entries."""
    if len(records) * len(tasks) > MOST:
        return []
    return [[getattr(record, what).get(task) for task in tasks] for record in records]


def _row(record: StageRecord, tasks: Sequence[str]) -> Row:
    return [record.accuracy.get(task) for task in tasks]
