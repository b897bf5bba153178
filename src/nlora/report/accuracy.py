"""Tables of accuracy: in the shape of the paper's Tables 1, 2 and 4, and every metric by stream.

Average accuracy stands beside learning accuracy, forgetting and transfer, and above all there is
the zero-shot row: a method that learns nothing forgets nothing.
"""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from nlora.evaluation.statistics import mean_and_spread
from nlora.report import averaged
from nlora.report.fairness import fairness
from nlora.report.footnotes import legend, marked
from nlora.report.runs import ZERO_SHOT, Run, Section
from nlora.report.table import Cell, Table, Value

METRICS = {
    "average": "average_accuracy",
    "learning": "learning_accuracy",
    "forgetting": "forgetting",
    "backward": "backward_transfer",
    "forward": "forward_transfer",
}

BESIDE = {
    "among labels": ("among_labels", "average_accuracy"),
    "off the list": ("off_list", "average"),
}
"""What stands beside them where it was measured, and where in a row it is."""

BENCHMARKS = {
    "standard": ("order-1", "order-2", "order-3"),
    "large": ("order-4", "order-5", "order-6"),
}
"""The Standard CL Benchmark and the Large Number of Tasks, each in three orders."""


def accuracy(section: Section) -> Table:
    """Average accuracy by order and over the orders of a benchmark, and what belongs to it."""
    groups = _groups(section.streams)
    columns = ["method"]
    for name, streams in groups.items():
        several = len(streams) > 1
        columns += [*streams, *([f"{name}: average"] if several else [])]
        names = [*METRICS, *_beside(section)]
        columns += [f"{name if several else streams[0]}: {m}" for m in names if m != "average"]
    rows: list[list[Cell]] = []
    for label, measured in _zero_shot(section).items():
        rows.append([label, *_zero_cells(groups, measured, _beside(section))])
    for label in section.methods:
        cells: list[Cell] = [marked(section, label)]
        for streams in groups.values():
            cells += [_cell(section, label, [stream], "average_accuracy") for stream in streams]
            names = list(METRICS.values())[0 if len(streams) > 1 else 1 :]
            cells += [_cell(section, label, streams, name) for name in names]
            cells += [_cell(section, label, streams, *BESIDE[m]) for m in _beside(section)]
        rows.append(cells)
    notes = [
        "accuracy after the last stage in per cent; learning: each task right after it was "
        "learned; ± standard deviation over seeds",
        *_meanings(section),
        *(f"{n}: over {', '.join(s)}" for n, s in groups.items() if len(s) > 1),
        *fairness(section),
        *legend(section, section.methods),
        *section.failures(),
    ]
    return Table("accuracy", f"Average accuracy. {section.title}", columns, rows, notes)


def metrics(section: Section) -> Table:
    """Every metric of every method on every stream."""
    rows: list[list[Cell]] = []
    for stream in section.streams:
        for label, measured in _zero_shot(section).items():
            if stream in measured:
                found = measured[stream]
                cells: list[Cell] = [Value(found["average"]), *([None] * (len(METRICS) - 1))]
                cells += [_value(found.get(name)) for name in _beside(section)]
                rows.append([stream, label, *cells, None, None])
        for label in section.methods:
            runs = section.of(label, stream)
            cells = [_cell(section, label, [stream], name) for name in METRICS.values()]
            cells += [_cell(section, label, [stream], *BESIDE[m]) for m in _beside(section)]
            cells.append(over_seeds(runs, unseen))
            seeds = ", ".join(str(run.seed) for run in runs)
            if runs or "failed" in cells:
                rows.append([stream, marked(section, label), *cells, seeds])
    notes = [
        "in per cent; ± standard deviation over seeds; unseen: the last task before it is learned, "
        "a_{T−1,T} (Figure 4 of the paper)",
        *_meanings(section),
    ]
    notes += [*legend(section, section.methods), *section.failures()]
    columns = ["stream", "method", *METRICS, *_beside(section), "unseen", "seeds"]
    return Table("metrics", f"All metrics. {section.title}", columns, rows, notes)


def unseen(run: Run) -> float | None:
    """The accuracy on the last task after the stage before it, a_{T−1,T} (Figure 4)."""
    matrix = run.row["accuracy_matrix"]
    if len(matrix) < 2 or run.row["stages"] != run.trained:
        return None
    return of_last(run, matrix[-2])


def of_last(run: Run, row: Sequence[float | None]) -> float | None:
    """What a row over `tasks` says of the one that is learned last."""
    return row[run.row["tasks"].index(run.trained[-1])]


def over_seeds(runs: Sequence[Run], value: Callable[[Run], Any], form: str = ".1f") -> Value | None:
    """The mean of a number over runs, and its spread; None unless all have it."""
    values = [value(run) for run in runs]
    if not values or None in values:
        return None
    return Value(*mean_and_spread(values), form=form)


def over_streams(
    section: Section,
    label: str,
    streams: Sequence[str],
    value: Callable[[Run], Any],
    form: str = ".1f",
) -> Value | None:
    """The mean over streams, each counting the same; None unless all have it.

    The spread is that of the seeds' means over the streams, where all streams have the same seeds.
    """
    by_stream = [section.of(label, stream) for stream in streams]
    if len(streams) == 1:
        return over_seeds(by_stream[0], value, form)
    values = [[value(run) for run in runs] for runs in by_stream]
    if not values or not all(values) or any(None in row for row in values):
        return None
    seeds = [[run.seed for run in runs] for runs in by_stream]
    if all(row == seeds[0] for row in seeds):
        return Value(*mean_and_spread([fmean(row) for row in zip(*values, strict=True)]), form=form)
    return Value(fmean(fmean(row) for row in values), form=form)


def _groups(streams: Sequence[str]) -> dict[str, list[str]]:
    """The streams by benchmark; any other stream is one of its own."""
    found = {
        name: [s for s in orders if s in streams]
        for name, orders in BENCHMARKS.items()
        if set(orders) & set(streams)
    }
    known = {s for orders in BENCHMARKS.values() for s in orders}
    return {**found, **{s: [s] for s in streams if s not in known}}


def _beside(section: Section) -> list[str]:
    """What of `BESIDE` any run has."""
    return [m for m, (key, _) in BESIDE.items() if any(key in run.row for run in section.runs)]


def _meanings(section: Section) -> list[str]:
    said = {
        "among labels": "average accuracy where the answer is the most likely of the task's labels",
        "off the list": "share of answers that are none of the task's labels",
    }
    found = [f"{name}: {said[name]}" for name in _beside(section)]
    fewer = [
        f"{name} on {stream}: over the {counts[0]} of {counts[1]} tasks that have labels"
        for name in _beside(section)
        for stream in section.streams
        for counts in dict.fromkeys(
            averaged.fewer(run.row, BESIDE[name][0])
            for run in section.runs
            if run.stream == stream and not run.error
        )
        if counts is not None and counts[0]  # over none is a dash in its column
    ]
    return ["; ".join([*found, "both after the last stage"]), *fewer] if found else []


def _cell(
    section: Section, label: str, streams: Sequence[str], name: str, part: str | None = None
) -> Cell:
    def value(run: Run) -> Any:
        return run.row[name] if part is None else run.row.get(name, {}).get(part)

    found = over_streams(section, label, streams, value)
    if found is None and len(streams) == 1 and not section.of(label, streams[0]):
        failed = [r for r in section.runs if r.error and (r.label, r.stream) == (label, streams[0])]
        return "failed" if failed else None
    return found


def _zero_shot(section: Section) -> dict[str, dict[str, dict[str, float]]]:
    """Of the untrained model, by prompt and stream, its average accuracy and what is beside it.

    It was measured once for each.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for run in section.runs:
        row = run.row.get("zero_shot")
        if run.error or not row or None in row:
            continue
        row = averaged.counted(run.row, row)
        settings = {"prompt": ("paper", str), "chat": (False, lambda on: str(on).lower())}
        other = [
            f"{name}={form(run.settings[name])}"
            for name, (plain, form) in settings.items()
            if run.settings.get(name, plain) != plain
        ]
        label = ":".join([ZERO_SHOT, *([",".join(other)] if other else [])])
        measured = {"average": fmean(row)}
        for name, (key, _) in BESIDE.items():
            beside = run.row.get(key, {}).get("zero_shot")
            values = averaged.counted(run.row, beside) if beside else []
            measured |= {name: fmean(values)} if values else {}
        found.setdefault(label, {}).setdefault(run.stream, measured)
    return dict(sorted(found.items()))


def _zero_cells(
    groups: dict[str, list[str]], measured: dict[str, dict[str, float]], beside: Sequence[str]
) -> list[Cell]:
    cells: list[Cell] = []
    for streams in groups.values():
        found = [measured.get(stream, {}) for stream in streams]
        cells += [_value(values.get("average")) for values in found]
        if len(streams) > 1:
            cells.append(_whole([values.get("average") for values in found]))
        cells += [None] * (len(METRICS) - 1)
        cells += [_whole([values.get(name) for values in found]) for name in beside]
    return cells


def _value(number: float | None) -> Cell:
    return None if number is None else Value(number)


def _whole(numbers: Sequence[float | None]) -> Cell:
    """Their mean, if all are there."""
    known = [number for number in numbers if number is not None]
    return Value(fmean(known)) if len(known) == len(numbers) else None
