"""Tables of accuracy: in the shape of the paper's Tables 1, 2 and 4, and every metric by stream.

Average accuracy stands beside learning accuracy, forgetting and transfer, and above all there is
the zero-shot row: a method that learns nothing forgets nothing.
"""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from nlora.report.fairness import fairness
from nlora.report.footnotes import legend, marked
from nlora.report.runs import ZERO_SHOT, Run, Section
from nlora.report.statistics import mean_and_spread
from nlora.report.table import Cell, Table, Value

METRICS = {
    "average": "average_accuracy",
    "learning": "learning_accuracy",
    "forgetting": "forgetting",
    "backward": "backward_transfer",
    "forward": "forward_transfer",
}

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
        columns += [f"{name if several else streams[0]}: {m}" for m in METRICS if m != "average"]
    rows: list[list[Cell]] = []
    for label, measured in _zero_shot(section).items():
        rows.append([label, *_zero_cells(groups, measured)])
    for label in section.methods:
        cells: list[Cell] = [marked(section, label)]
        for streams in groups.values():
            cells += [_cell(section, label, [stream], "average_accuracy") for stream in streams]
            names = list(METRICS.values())[0 if len(streams) > 1 else 1 :]
            cells += [_cell(section, label, streams, name) for name in names]
        rows.append(cells)
    notes = [
        "accuracy after the last stage in per cent; learning: each task right after it was "
        "learned; ± standard deviation over seeds",
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
                cells: list[Cell] = [Value(measured[stream]), *([None] * (len(METRICS) - 1))]
                rows.append([stream, label, *cells, None])
        for label in section.methods:
            runs = section.of(label, stream)
            cells = [_cell(section, label, [stream], name) for name in METRICS.values()]
            seeds = ", ".join(str(run.seed) for run in runs)
            if runs or "failed" in cells:
                rows.append([stream, marked(section, label), *cells, seeds])
    notes = ["in per cent; ± standard deviation over seeds"]
    notes += [*legend(section, section.methods), *section.failures()]
    columns = ["stream", "method", *METRICS, "seeds"]
    return Table("metrics", f"All metrics. {section.title}", columns, rows, notes)


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
    if not all(values) or any(None in row for row in values):
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


def _cell(section: Section, label: str, streams: Sequence[str], name: str) -> Cell:
    found = over_streams(section, label, streams, lambda run: run.row[name])
    if found is None and len(streams) == 1 and not section.of(label, streams[0]):
        failed = [r for r in section.runs if r.error and (r.label, r.stream) == (label, streams[0])]
        return "failed" if failed else None
    return found


def _zero_shot(section: Section) -> dict[str, dict[str, float]]:
    """The untrained model's average accuracy by prompt and stream, measured once for each."""
    found: dict[str, dict[str, float]] = {}
    for run in section.runs:
        row = run.row.get("zero_shot")
        if run.error or not row or None in row:
            continue
        settings = {"prompt": ("paper", str), "chat": (False, lambda on: str(on).lower())}
        other = [
            f"{name}={form(run.settings[name])}"
            for name, (plain, form) in settings.items()
            if run.settings.get(name, plain) != plain
        ]
        label = ":".join([ZERO_SHOT, *([",".join(other)] if other else [])])
        found.setdefault(label, {}).setdefault(run.stream, fmean(row))
    return dict(sorted(found.items()))


def _zero_cells(groups: dict[str, list[str]], measured: dict[str, float]) -> list[Cell]:
    cells: list[Cell] = []
    for streams in groups.values():
        values = [measured.get(stream) for stream in streams]
        cells += [None if v is None else Value(v) for v in values]
        if len(streams) > 1:
            whole = [v for v in values if v is not None]
            cells.append(Value(fmean(whole)) if len(whole) == len(streams) else None)
        cells += [None] * (len(METRICS) - 1)
    return cells
