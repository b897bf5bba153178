"""The charts of a page as Vega-Lite specifications: the page draws them with Vega, inlined."""

from collections import Counter
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from nlora.continual.tasks import titles
from nlora.page.material import Material
from nlora.page.measures import averages, first_learned_at, mean_matrix
from nlora.page.vega import (
    SHAPES,
    Json,
    accuracy_lines,
    choice,
    colours,
    cycled,
    height,
    legend,
    number,
    picked,
    rate_map,
    short,
)
from nlora.report.runs import Run, Section
from nlora.store.records import tracked

_DOTTED = 20
"""Each step is a dot where a stage has so many at most; a line through one step is none."""
_STEPS = 6000
"""Points of training that a page shows, of all runs together."""


@dataclass(frozen=True)
class Chart:
    """A chart, and what it shows in words, for those who do not see it too."""

    title: str
    caption: str
    spec: Json


def over_stages(section: Section) -> list[Chart]:
    """By stream: the mean over the tasks learned so far, and every task by itself."""
    charts = []
    for stream in section.streams:
        known = {m: section.of(m, stream) for m in section.methods}
        known = {m: runs for m, runs in known.items() if runs and runs[0].row["accuracy_matrix"]}
        if not known:
            continue
        longest = sorted(known, key=lambda m: -len(known[m][0].row["accuracy_matrix"]))
        means = [
            {"method": label, "stage": stage, "accuracy": short(fmean(values))}
            for label, runs in known.items()
            for stage, values in enumerate(
                zip(*(averages(run) for run in runs), strict=False), start=1
            )
        ]
        if len(known) > 1:
            charts.append(
                Chart(
                    f"Tasks so far, {stream}",
                    "Accuracy after each stage, the mean over the tasks learned so far and over "
                    "seeds. A line that falls forgets; click a name to see it alone.",
                    accuracy_lines(means, "method", list(known)),
                )
            )
        tasks = [
            {"method": label, "stage": stage + 1, "task": name, "accuracy": short(row[i])}
            for label, runs in known.items()
            for stage, row in enumerate(mean_matrix(runs))
            for i, name in enumerate(runs[0].row["tasks"])
            if row[i] is not None and stage >= first_learned_at(runs[0]).get(name, 0)
        ]
        charts.append(
            Chart(
                f"Every task, {stream}",
                "Accuracy on each task, from the stage that learns it on, the mean over seeds.",
                accuracy_lines(tasks, "task", runs_tasks(known.values()), choose=longest),
            )
        )
    return charts


def runs_tasks(groups: Any) -> list[str]:
    """The tasks of some runs, each once, in their order."""
    return list(dict.fromkeys(name for runs in groups for name in runs[0].row["tasks"]))


def trade_off(section: Section) -> list[Chart]:
    """Learning against forgetting, a point per method and stream."""
    points = [
        {
            "method": label,
            "stream": stream,
            "learning": short(fmean(run.row["learning_accuracy"] for run in runs)),
            "forgetting": short(fmean(run.row["forgetting"] for run in runs)),
        }
        for (label, stream), runs in section.cells.items()
        if all(run.row["learning_accuracy"] is not None for run in runs)
        and all(run.row["forgetting"] is not None for run in runs)
    ]
    names = list(dict.fromkeys(point["method"] for point in points))
    if len(names) < 2:
        return []
    several = len({point["stream"] for point in points}) > 1
    axes = {
        "x": number("learning", "learning accuracy (%)"),
        "y": number("forgetting", "forgetting (points)"),
    }
    spec = {
        "data": {"values": points},
        "params": [legend("method")],
        "height": height(names),
        "mark": {"type": "point", "filled": True, "size": 90, "tooltip": True},
        "encoding": {
            **axes,
            "color": colours("method", names),
            "shape": {"field": "stream", "type": "nominal"}
            if several
            else cycled("method", names, SHAPES),
            "opacity": picked("method"),
            "tooltip": [{"field": f} for f in ("method", "stream", "learning", "forgetting")],
        },
    }
    said = "Right and low is best: much learned, little forgotten. Means over seeds."
    return [Chart("Learned and forgotten", said, spec)]


def training(section: Section, material: Material) -> list[Chart]:
    """What the trackers log of every step, of the first run of each method that is there.

    Names are the trackers': `loss/task`, `loss/<penalty>`, `learning_rate`, `gradient_norm`.
    """
    firsts: dict[str, Run] = {}
    for runs in section.cells.values():
        for run in runs:
            if material.model(run) is not None:
                firsts.setdefault(run.label, run)
    steps: list[Json] = []
    names: dict[str, None] = {}
    for label, run in firsts.items():
        directory = material.model(run)
        assert directory is not None
        records, first = directory.stages(), 0
        most = max(_STEPS // (len(firsts) * max(len(records), 1)), 20)
        for record, title in zip(records, titles(records), strict=True):
            found = list(directory.steps(record))
            rows = [{"step": row["step"], **tracked(row)} for row in found]
            for row in rows[:: -(-len(rows) // most) if rows else 1]:
                names |= dict.fromkeys(key for key in row if key != "step")
                at = {"method": label, "stage": title, "step": first + int(row["step"])}
                steps.append(at | {k: short(v, 4) for k, v in row.items() if k != "step"})
            first += len(rows)
    if not steps:
        return []
    stages = list(dict.fromkeys(row["stage"] for row in steps))
    longest = max(Counter((row["method"], row["stage"]) for row in steps).values())
    shown = sorted(names, key=lambda name: (name != "loss/task", "/" not in name))
    choices = [choice("shown", shown), *([choice("method", list(firsts))] * (len(firsts) > 1))]
    spec = {
        "data": {"values": steps},
        "params": choices,
        "transform": [
            *([{"filter": "datum.method == method"}] * (len(firsts) > 1)),
            {"calculate": "datum[shown]", "as": "value"},
            {"filter": "isValid(datum.value)"},
        ],
        "mark": {"type": "line", "tooltip": True, "strokeWidth": 1.2, "point": longest <= _DOTTED},
        "encoding": {
            "x": {**number("step", "optimiser step"), "axis": {"tickMinStep": 1}},
            "y": number("value", None),
            "color": colours("stage", stages),
            "tooltip": [{"field": f} for f in ("stage", "step", "value")],
        },
    }
    said = "Every optimiser step, under the names that trackers are given (report_to)."
    return [Chart("Training", said, spec)]


def layers(section: Section) -> list[Chart]:
    """How dense each task's update is in each matrix, and how much updates collide there."""
    density: list[Json] = []
    rates: list[Json] = []
    matrices: dict[str, None] = {}
    seen: set[str] = set()
    for run in (run for runs in section.cells.values() for run in runs):
        found = run.row.get("geometry")
        if run.label in seen or not found or "error" in found or found["continues"]:
            continue
        seen.add(run.label)
        for matrix, rate, densities in _by_matrix(found):
            matrices[matrix] = None
            if rate is not None:
                rates.append({"method": run.label, "matrix": matrix, "rate": short(100 * rate)})
            density += [
                {"method": run.label, "matrix": matrix, "task": task, "rate": short(100 * value)}
                for task, value in zip(found["adapters"], densities, strict=False)
            ]
    if not density:
        return []
    labels = list(dict.fromkeys(row["method"] for row in density))
    tasks = list(dict.fromkeys(row["task"] for row in density))
    charts = []
    if rates:
        said = (
            "Per cent of entries in which two tasks' updates are both above a tenth of the "
            "matrix' root mean square, the mean over pairs of tasks; the first run of each method."
        )
        spec = rate_map(rates, "method", list(dict.fromkeys(r["method"] for r in rates)), matrices)
        charts.append(Chart("Collisions by layer", said, spec))
    said = (
        "Per cent of entries of each task's update above a tenth of the matrix' root mean square: "
        "the fewer, the sparser; the first run of each method."
    )
    spec = rate_map(density, "task", tasks, matrices, labels)
    return [*charts, Chart("Density by layer", said, spec)]


def _by_matrix(found: Json) -> list[tuple[str, float | None, list[float]]]:
    """Matrix, collision rate and densities; by kind of matrix in ledgers that have no more."""
    if layers := found.get("layers"):
        everywhere = set.intersection(*(set(name.split(".")[:-1]) for name in layers))
        return [
            (".".join(p for p in name.split(".") if p not in everywhere), m["acr"], m["density"])
            for name, m in layers.items()
        ]
    return [
        (kind, m["acr"], [adapter["density"]["mean"] for adapter in m["per_adapter"]])
        for kind, m in (found.get("kinds") or {}).items()
    ]
