"""Tables of the updates' geometry: Table 3 of the paper, collisions, the ratios of its Figure 1(c).

Overlap and collisions never stand without ‖ΔW‖_F: all but the relative ones fall when an update
merely shrinks.
"""

from collections.abc import Callable
from statistics import fmean
from typing import Any

from nlora.report.accuracy import METRICS, over_streams
from nlora.report.footnotes import legend, marked
from nlora.report.runs import Run, Section
from nlora.report.table import Cell, Table, Value, text

Measure = Callable[[Run], float | None]


def _last(name: str) -> Measure:
    """The newest update against all before it, summed over matrices (Eqs. 7 and 8)."""

    def measure(run: Run) -> float | None:
        found = geometry(run)
        return found["last"][name]["sum"] if found and found["last"] else None

    return measure


def _mean(name: str) -> Measure:
    """The mean over matrices and updates."""

    def measure(run: Run) -> float | None:
        found = geometry(run)
        means = [a[name]["mean"] for a in found["per_adapter"]] if found else []
        return None if not means or None in means else fmean(means)

    return measure


def _size(run: Run) -> float | None:
    """‖ΔW‖_F, the mean over matrices and updates."""
    sizes = [m["frobenius"] for stage in masks(run) for m in stage["matrices"].values()]
    return fmean(sizes) if sizes else _mean("frobenius")(run)


def _acr(threshold: int) -> Measure:
    """The mean collision rate over pairs of updates and matrices, per cent (paper, Section 3.2)."""

    def measure(run: Run) -> float | None:
        met = [rate for stage in masks(run) for rate in stage["collision_rates"]]
        found = geometry(run)
        rate = found["collisions"][threshold]["acr"] if found else fmean(met) if met else None
        return None if rate is None else 100 * rate

    return measure


MEASURES: dict[str, Measure] = {
    "OO": _last("oo"),
    "AWOM": _last("awom_input_fro"),
    "‖ΔW‖_F": _size,
}

COLLISIONS: dict[str, Measure] = {
    "ACR 0.1rms": _acr(0),
    "ACR 1e-3": _acr(1),
    "GSR": _mean("gsr"),
}
"""The thresholds are those of `nlora.study.rows`."""

NUCLEAR: Measure = _mean("nuclear_norm")

RATIOS: dict[str, Measure] = {**COLLISIONS, **MEASURES}

MEANINGS = (
    "ACR: per cent of entries in which two updates are both above a threshold, over pairs: 0.1rms "
    "is a tenth of the matrix' root mean square, and shrinking does not change; 1e-3 absolute; "
    "GSR: density, ‖ΔW‖₁/(√(mn)·‖ΔW‖_F), which shrinking does not change either"
)


def geometry(run: Run) -> dict[str, Any] | None:
    """The geometry of a run's updates; None where there are no updates to compare."""
    found = run.row.get("geometry")
    # One adapter that is continued is no update per task.
    return found if found and "error" not in found and not found["continues"] else None


def masks(run: Run) -> list[dict[str, Any]]:
    """What each stage of sparse updates at chosen positions notes; nothing of other runs."""
    notes = run.row.get("notes", {}).values()
    return [note["sparse"] for note in notes if isinstance(note, dict) and "sparse" in note]


def overlaps(section: Section) -> Table | None:
    """OO and AWOM by order, with ‖ΔW‖_F beside them; the longer side runs down."""
    methods = [m for m in _methods(section) if any(map(MEASURES["OO"], section.of(m)))]
    if not methods:
        return None
    streams = {s: [s] for s in section.streams}
    if len(streams) > 1:
        streams["average"] = section.streams

    def cell(measure: Measure, method: str, stream: str) -> Cell:
        return over_streams(section, method, streams[stream], measure, ".3g")

    down, across = ("method", "stream") if len(methods) > len(streams) else ("stream", "method")
    names = {"method": methods, "stream": list(streams)}
    rows: list[list[Cell]] = [
        [
            marked(section, name) if down == "method" else name,
            *(
                cell(measure, **{down: name, across: other})
                for measure in MEASURES.values()
                for other in names[across]
            ),
        ]
        for name in names[down]
    ]
    heads = [text(marked(section, n)) if across == "method" else n for n in names[across]]
    columns = [down, *(f"{measure} {head}" for measure in MEASURES for head in heads)]
    notes = [
        "lower is more orthogonal; OO: Σ‖A_i·A_tᵀ‖² and AWOM: Σ‖ΔW_t·ΔW_iᵀ‖_F of the last "
        "update against all before it, summed over matrices; ‖ΔW‖_F: mean over updates and "
        "matrices. Both fall when an update merely shrinks",
        *legend(section, methods),
    ]
    title = f"Overlap of the updates. {section.title}"
    return Table("orthogonality", title, columns, rows, notes)


def collisions(section: Section) -> Table | None:
    """Where updates meet, how dense and large they are, beside what is kept and learned."""
    measured = {name: (measure, ".3g") for name, measure in COLLISIONS.items()}
    measured["‖ΔW‖_F"] = (_size, ".3g")
    for name in ("average", "learning", "forgetting"):
        measured[name] = (lambda run, metric=METRICS[name]: run.row[metric], ".1f")
    rows: list[list[Cell]] = []
    shown = []
    for label in section.methods:
        runs = [run for run in section.of(label) if _acr(0)(run) is not None]
        streams = list(dict.fromkeys(run.stream for run in runs))
        if streams:
            cells = [over_streams(section, label, streams, *how) for how in measured.values()]
            rows.append([marked(section, label), *cells, ", ".join(streams)])
            shown.append(label)
    if not rows:
        return None
    notes = [f"{MEANINGS}; ‖ΔW‖_F: mean over updates and matrices"]
    if any(masks(run) for label in shown for run in section.of(label)):
        notes.append("ACR of sparse updates: per cent of entries that two of them both train")
    notes += legend(section, shown)
    columns = ["method", *measured, "streams"]
    return Table("collisions", f"Collisions of the updates. {section.title}", columns, rows, notes)


def ratios(section: Section, baseline: str) -> Table | None:
    """How many times lower than the baseline's: collisions, overlap and size, with accuracy."""
    methods = [m for m in _methods(section) if m != baseline]
    if baseline not in _methods(section) or not methods:
        return None
    rows: list[list[Cell]] = []
    for label in methods:
        both = section.paired(baseline, label)
        streams = [stream for stream in section.streams if both.of(label, stream)]
        cells: list[Cell] = [marked(section, label)]
        for measure in RATIOS.values():
            a, b = (over_streams(both, m, streams, measure) for m in (baseline, label))
            cells.append(Value(a.mean / b.mean, form=".3g") if a and b and b.mean else None)
        for name in ("average_accuracy", "learning_accuracy"):
            a, b = (
                over_streams(both, m, streams, lambda run, name=name: run.row[name])
                for m in (baseline, label)
            )
            cells.append(Value(b.mean - a.mean, form="+.1f") if a and b else None)
        rows.append(cells)
    columns = ["method", *(f"{name} ×" for name in RATIOS), "average", "learning"]
    notes = [
        f"×: {baseline}'s value divided by the method's, so above 1 is lower than {baseline}'s; "
        "average and learning: accuracy minus its, in points; means over the streams and seeds "
        "that both have",
        f"{MEANINGS}; OO, AWOM and ‖ΔW‖_F as in the table of orthogonality",
        *legend(section, methods),
    ]
    return Table("ratios", f"Against {baseline}. {section.title}", columns, rows, notes)


def _methods(section: Section) -> list[str]:
    return [m for m in section.methods if any(geometry(run) for run in section.of(m))]
