"""`results.json`: what the committed stages say together."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from nlora.evaluation.matrix import Row, average_accuracy, summary
from nlora.store.directory import ModelDirectory, StageRecord
from nlora.store.records import taken_out


def results(directory: ModelDirectory, tasks: Sequence[str], method: str) -> dict[str, Any]:
    """Accuracies (unrounded per cent, None where not measured) and all that follows from them.

    Row k of `accuracy_matrix` is measured after stage k, its columns are `tasks`. Metrics are over
    the tasks learned so far, without those that were taken out. A method that trains all tasks in
    one stage has one row and neither learning accuracy nor forgetting nor transfer. `routing`,
    where a router chooses, is what it took for what at the last stage. An adapter of which nobody
    said what it knows has a row and counts in no metric. Tasks that are only tested have columns,
    and what they lost is in `only_tested`; the metrics leave them out. `among_labels` has the same
    matrix and metrics where the answer is the most likely label, `off_list` the share of answers
    that are no label; both are of tasks with labels, which they name (`averaged`) where others have
    none. `kl`, where it was measured, is how far each stage moved the model.
    """
    return results_of(directory.stages(), directory.zero_shot(), tasks, method)


def results_of(
    records: Sequence[StageRecord], zero: StageRecord | None, tasks: Sequence[str], method: str
) -> dict[str, Any]:
    """`results` of these records."""
    everything = [*([zero] if zero else []), *records]
    matrix = [_row(record, tasks) for record in records]
    zero_shot = _row(zero, tasks) if zero else None
    standing = in_force(records)
    learned = [t["name"] for record in standing for t in record.tasks]
    of_a_task = [_row(record, tasks) for record in standing if record.tasks or _takes_out(record)]
    if all(len(record.tasks) <= 1 for record in records):
        columns = [tasks.index(name) for name in learned]
        metrics = summary(
            [[row[c] for c in columns] for row in of_a_task],
            [zero_shot[c] for c in columns] if zero_shot else None,
        )
    else:
        columns = [tasks.index(name) for name in learned] or list(range(len(tasks)))
        average = average_accuracy([[row[c] for c in columns] for row in matrix])
        metrics = {**summary([], None), "average_accuracy": average}
    listed = [tasks.index(name) for name in learned or tasks if _listed(everything, name)]
    some = {} if len(listed) == len(columns) else {"averaged": [tasks[c] for c in listed]}
    untrained = {name: _drop(everything, name) for name in tasks if _only_tested(zero, name)}
    return {
        "method": method,
        "tasks": list(tasks),
        "stages": [record.name for record in records],
        "zero_shot": zero_shot,
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


def columns(
    directory: ModelDirectory, records: Sequence[StageRecord], zero: StageRecord | None
) -> list[str]:
    """The tasks that the results of these records are about: a run's, or what was learned."""
    planned = list(directory.config().get("tasks") or [])
    learned = list(dict.fromkeys(t["name"] for record in records for t in record.tasks))
    if set(learned) <= set(planned):
        return planned
    return [*learned, *(t["name"] for t in (zero.tasks if zero else []))]


def _listed(records: Sequence[StageRecord], task: str) -> bool:
    """Whether a task has labels."""
    return any(task in record.off_list for record in records)


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
    matrix = [[r.among_labels.get(task) for task in tasks] for r in records]
    zero_shot = [zero.among_labels.get(task) for task in tasks] if zero else None
    standing = in_force(records)
    rows = [[r.among_labels.get(tasks[c]) for c in listed] for r in standing]
    before = [zero_shot[c] for c in listed] if zero_shot else None
    one_each = all_listed and all(len(r.tasks) == 1 or _takes_out(r) for r in standing)
    metrics = summary(rows if one_each else [], before)
    metrics["average_accuracy"] = average_accuracy(rows)
    return {"among_labels": {"zero_shot": zero_shot, "accuracy_matrix": matrix, **metrics, **some}}


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
    matrix = [[r.off_list.get(task) for task in tasks] for r in records]
    average = average_accuracy([[row[c] for c in listed] for row in matrix])
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
    return {"kl": {"matrix": [[r.kl.get(task) for task in tasks] for r in records], **means}}


def _only_tested(zero: StageRecord | None, task: str) -> bool:
    return zero is not None and any(known["name"] == task for known in zero.tasks)


def _drop(records: Sequence[StageRecord], task: str) -> dict[str, float | None]:
    """What a task that nobody trains had before training, has now, and has lost."""
    before, now = (records[i].accuracy.get(task) for i in (0, -1))
    lost = None if before is None or now is None else before - now
    return {"before": before, "now": now, "lost": lost}


def _routed(records: Sequence[StageRecord]) -> bool:
    return bool(records) and "routing" in records[-1].notes


def _row(record: StageRecord, tasks: Sequence[str]) -> Row:
    return [record.accuracy.get(task) for task in tasks]
