"""Figures 1(c), 4 and 6: methods side by side."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import Any

from nlora.paper import style
from nlora.paper.figure import Figure, beside_row
from nlora.paper.material import NO_PENALTY, Material
from nlora.paper.published import FIGURE_1C, FIGURE_4, ORDERS, STANDARD
from nlora.report.accuracy import of_last, unseen
from nlora.report.overlap import COLLISIONS, MEASURES, NUCLEAR
from nlora.report.runs import Run
from nlora.report.table import Cell, Table, Value

ABLATION = {NO_PENALTY: "NS", "sa": "SA", "sb": "SB", "sab": "SAB", "n-lora": "N-LoRA"}
"""Where the penalty is: nowhere, on A, on B, on each, on ΔW (Section 4.5)."""

_RATIOS = {
    "nuclear norm": (NUCLEAR, "nuclear norm"),
    "OO": (MEASURES["OO"], "OO"),
    "AWOM": (MEASURES["AWOM"], None),
    "ACR 1e-3": (COLLISIONS["ACR 1e-3"], "ACR"),
    "ACR 0.1rms": (COLLISIONS["ACR 0.1rms"], "ACR"),
    "‖ΔW‖_F": (MEASURES["‖ΔW‖_F"], None),
}
"""What is compared, and the paper's name for it. The paper gives no threshold for ACR."""


def figure_1c(material: Material) -> Figure | None:
    """How many times lower N-LoRA's updates are than O-LoRA's in norm, overlap and collisions."""
    streams = [
        s for s in ORDERS if material.section.of("o-lora", s) and material.section.of("n-lora", s)
    ]
    rows: list[list[Cell]] = []
    for name, (measure, theirs) in _RATIOS.items():
        o, n = (material.value(m, streams, measure, ".3g") for m in ("o-lora", "n-lora"))
        if o and n and n.mean:
            ratio = Value(o.mean / n.mean, form=".3g")
            rows.append([name, o, n, ratio, Value(FIGURE_1C[theirs]) if theirs else None])
    if not rows:
        return None
    told = [
        beside_row("n-lora", ", ".join(streams), f"{name}, times lower", row[3], theirs, ".3g")
        for row in rows
        if (name := str(row[0])) and (theirs := FIGURE_1C.get(_RATIOS[name][1] or ""))
        if isinstance(row[3], Value)
    ]
    accuracy = [material.value(m, streams, _average) for m in ("o-lora", "n-lora")]
    if accuracy[0] and accuracy[1]:
        gain = Value(accuracy[1].mean - accuracy[0].mean, form="+.1f")
        what, theirs = "accuracy, points above", FIGURE_1C["accuracy"]
        told.append(beside_row("n-lora", ", ".join(streams), what, gain, theirs, ".1f"))
    notes = [
        f"over {', '.join(streams)}",
        "all but ACR 0.1rms fall when an update merely shrinks, so ‖ΔW‖_F stands beside them",
    ]
    columns = ["measure", "o-lora", "n-lora", "times lower", "paper"]
    data = Table("figure-1c", "N-LoRA against O-LoRA", columns, rows, notes)

    def drawn() -> Any:
        ours = [row[3].mean for row in rows if isinstance(row[3], Value)]
        paper = [row[4].mean if isinstance(row[4], Value) else None for row in rows]
        return _bars(
            [str(row[0]) for row in rows],
            {"ours": list(ours), "paper": paper},
            {"ours": style.RED, "paper": style.GREY},
            ylabel="O-LoRA / N-LoRA",
            log=True,
        )

    return Figure(data, drawn, tuple(told))


def figure_4(material: Material) -> Figure | None:
    """Accuracy on the last task before it is learned, a_{T−1,T}."""
    methods = ["n-lora", "o-lora"]
    streams = material.measured(methods, ORDERS)
    rows: list[list[Cell]] = []
    for stream in streams:
        found = [material.value(m, [stream], unseen) for m in methods]
        rows.append([stream, *found, _before_all(material, methods, stream)])
    if not any(cell is not None for row in rows for cell in row[1:3]):
        return None
    told = tuple(
        beside_row(m, "mean over orders", "unseen task", Value(fmean(v)), FIGURE_4[m], ".1f")
        for i, m in enumerate(methods, start=1)
        if (v := [c.mean for row in rows if isinstance(c := row[i], Value)])
    )
    columns = ["order", *methods, "zero-shot"]
    data = Table("figure-4", "The task that is not learned yet", columns, rows, [])
    series = {
        name: [
            *(c.mean if isinstance(c := row[i], Value) else None for row in rows),
            FIGURE_4.get(name),
        ]
        for i, name in enumerate(columns[1:], start=1)
    }
    return Figure(
        data,
        lambda: _bars(
            [*(str(row[0]) for row in rows), "paper: mean"],
            series,
            {name: style.colour(name) for name in series},
            ylabel="accuracy on the unseen task (%)",
        ),
        told,
    )


def figure_6(material: Material) -> Figure | None:
    """Average accuracy with the penalty in different places."""
    streams = material.measured(list(ABLATION), STANDARD)
    rows: list[list[Cell]] = [
        [name, *(_ablated(material, label, stream) for stream in streams)]
        for label, name in ABLATION.items()
    ]
    if not any(cell is not None for row in rows for cell in row[1:]):
        return None
    notes = [
        "NS: no penalty; SA, SB: on A or B alone; SAB: on each; N-LoRA: on ΔW",
        "the paper's bars have no numbers: N-LoRA stands highest there, NS lowest",
    ]
    data = Table("figure-6", "Where the penalty is", ["penalty", *streams], rows, notes)
    series = {
        stream: [c.mean if isinstance(c := row[i], Value) else None for row in rows]
        for i, stream in enumerate(streams, start=1)
    }
    return Figure(
        data,
        lambda: _bars(
            list(ABLATION.values()),
            series,
            {name: style.CYCLE[i] for i, name in enumerate(series)},
            ylabel="average accuracy (%)",
        ),
    )


def _ablated(material: Material, label: str, stream: str) -> Value | None:
    """The accuracy of one bar."""
    found = material.unpenalised(stream) if label == NO_PENALTY else label
    return None if found is None else material.value(found, [stream], _average)


def _average(run: Run) -> Any:
    return run.row["average_accuracy"]


def _before_all(material: Material, methods: Sequence[str], stream: str) -> Value | None:
    """The last task's zero-shot accuracy, of whichever run has it."""
    for method in methods:
        for run in material.section.of(method, stream):
            row = run.row.get("zero_shot")
            if row and (accuracy := of_last(run, row)) is not None:
                return Value(accuracy)
    return None


@contextmanager
def _bars(
    names: Sequence[str],
    series: dict[str, list[Any]],
    colours: dict[str, str],
    ylabel: str,
    log: bool = False,
) -> Iterator[tuple[Any, Any]]:
    """Groups of bars; what was not run is a dash. On a log axis they stand on 1, up or down."""
    width, base = 0.8 / len(series), 1 if log else 0
    with style.panels(width=style.COLUMN, height=2.2) as (figure, axis):
        for i, (label, values) in enumerate(series.items()):
            places = [n + (i - (len(series) - 1) / 2) * width for n in range(len(names))]
            there = [(x, v) for x, v in zip(places, values, strict=True) if v is not None]
            axis.bar(
                [x for x, _ in there],
                [v - base for _, v in there],
                width,
                base,
                label=label,
                color=colours[label],
            )
            for x, value in zip(places, values, strict=True):
                if value is None or value == 0:
                    said, shift = ("–" if value is None else "0"), (0, 1)
                    look = {"ha": "center", "fontsize": 6}
                    axis.annotate(said, (x, base), shift, textcoords="offset points", **look)
        if log:
            axis.set_yscale("log")
            axis.axhline(1, color=style.BLACK, linewidth=0.6)
        axis.set_xticks(range(len(names)), names, rotation=25, ha="right")
        axis.set_ylabel(ylabel)
        figure.legend(loc="outside upper center", ncols=len(series))
        yield figure, axis
