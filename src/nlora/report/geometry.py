"""Tables of the updates' geometry: the paper's Table 3, and the ratios of its Figure 1(c).

Overlap and collisions never stand without ‖ΔW‖_F: all but the relative ones fall when an update
merely shrinks.
"""

from collections.abc import Callable
from statistics import fmean
from typing import Any

from nlora.report.accuracy import over_streams
from nlora.report.runs import Run, Section
from nlora.report.table import Cell, Table, Value

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
        return fmean(a[name]["mean"] for a in found["per_adapter"]) if found else None

    return measure


def _acr(run: Run) -> float | None:
    found = geometry(run)
    return 100 * found["acr"] if found and found["acr"] is not None else None


MEASURES: dict[str, Measure] = {
    "OO": _last("oo"),
    "AWOM": _last("awom_input_fro"),
    "‖ΔW‖_F": _mean("frobenius"),
}

RATIOS: dict[str, Measure] = {"ACR": _acr, **MEASURES, "GSR": _mean("gsr")}


def geometry(run: Run) -> dict[str, Any] | None:
    """The geometry of a run's updates; None where there are no updates to compare."""
    found = run.row.get("geometry")
    # One adapter that is continued is no update per task.
    return found if found and "error" not in found and not found["continues"] else None


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
            name,
            *(
                cell(measure, **{down: name, across: other})
                for measure in MEASURES.values()
                for other in names[across]
            ),
        ]
        for name in names[down]
    ]
    columns = [down, *(f"{measure} {other}" for measure in MEASURES for other in names[across])]
    notes = [
        "lower is more orthogonal; OO: Σ‖A_i·A_tᵀ‖² and AWOM: Σ‖ΔW_t·ΔW_iᵀ‖_F of the last "
        "update against all before it, summed over matrices; ‖ΔW‖_F: mean over updates and "
        "matrices. Both fall when an update merely shrinks",
    ]
    title = f"Overlap of the updates. {section.title}"
    return Table("orthogonality", title, columns, rows, notes)


def ratios(section: Section, baseline: str) -> Table | None:
    """How many times lower than the baseline's: collisions, overlap and size, with accuracy."""
    methods = [m for m in _methods(section) if m != baseline]
    if baseline not in _methods(section) or not methods:
        return None
    rows: list[list[Cell]] = []
    for label in methods:
        streams = [s for s in section.streams if section.of(label, s) and section.of(baseline, s)]
        cells: list[Cell] = [label]
        for measure in RATIOS.values():
            a, b = (over_streams(section, m, streams, measure) for m in (baseline, label))
            cells.append(Value(a.mean / b.mean, form=".3g") if a and b and b.mean else None)
        for name in ("average_accuracy", "learning_accuracy"):
            a, b = (
                over_streams(section, m, streams, lambda run, name=name: run.row[name])
                for m in (baseline, label)
            )
            cells.append(Value(b.mean - a.mean, form="+.1f") if a and b else None)
        rows.append(cells)
    columns = ["method", *(f"{name} ×" for name in RATIOS), "average", "learning"]
    notes = [
        f"×: {baseline}'s value divided by the method's, so above 1 is lower than {baseline}'s; "
        "average and learning: accuracy minus its, in points; means over the streams that both "
        "have",
        "ACR: share of entries above 0.1 of their matrix' root mean square in two updates at "
        "once, over pairs; GSR: density, which shrinking does not change, like this ACR; OO, AWOM "
        "and ‖ΔW‖_F as in the table of orthogonality",
    ]
    return Table("ratios", f"Against {baseline}. {section.title}", columns, rows, notes)


def _methods(section: Section) -> list[str]:
    return [m for m in section.methods if any(geometry(run) for run in section.of(m))]
