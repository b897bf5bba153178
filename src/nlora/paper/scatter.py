"""Figure 5 and two more: what goes with what, a point per run or setting."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import fmean
from typing import Any

import numpy as np

from nlora.paper import style
from nlora.paper.figure import Figure, beside_row
from nlora.paper.material import Material
from nlora.paper.published import FIGURE_5, ORDERS
from nlora.report.overlap import COLLISIONS
from nlora.report.table import Cell, Table, Value

_WEIGHTED = re.compile(r"n-lora(:l1=[^,]*)?")
_SHAPES = {"n-lora": "o", "o-lora": "^"}
_SPREAD = 2.0
"""Half the axes of an ellipse, in standard deviations."""


def figure_5(material: Material) -> Figure | None:
    """Density against collision rate, a point per order and seed, with the mean forgetting."""
    methods = ("n-lora", "o-lora")
    rows: list[list[Cell]] = []
    for method in methods:
        for stream in ORDERS:
            for run in material.section.of(method, stream):
                gsr, acr = COLLISIONS["GSR"](run), COLLISIONS["ACR 1e-3"](run)
                relative = COLLISIONS["ACR 0.1rms"](run)
                if gsr is None or acr is None or relative is None:
                    continue
                numbers = [
                    (gsr, ".3g"),
                    (acr, ".3g"),
                    (relative, ".3g"),
                    (run.row["forgetting"], ".1f"),
                ]
                cells = [None if v is None else Value(v, form=form) for v, form in numbers]
                rows.append([method, stream, run.seed, *cells])
    if not rows:
        return None
    columns = ["method", "order", "seed", "GSR", "ACR 1e-3", "ACR 0.1rms", "forgetting"]
    notes = [
        "ACR at the absolute threshold 1e-3, which falls when an update merely shrinks, and at a "
        "tenth of the matrix' root mean square, which does not; the paper gives none",
    ]
    data = Table("figure-5", "Density, collisions and forgetting", columns, rows, notes)
    told = tuple(
        beside_row(method, "mean over orders", "forgetting", mean, FIGURE_5[method], ".2f")
        for method in methods
        if (mean := _forgetting(rows, method))
    )

    @contextmanager
    def drawn() -> Iterator[tuple[Any, Any]]:
        with style.panels(1, 2, width=style.WIDE, height=2.4) as (figure, axes):
            for axis, column in zip(axes, (4, 5), strict=True):
                for method in methods:
                    own = [row for row in rows if row[0] == method]
                    points = np.array([[row[3].mean, row[column].mean] for row in own])  # type: ignore[union-attr]
                    if not len(points):
                        continue
                    colour = style.colour(method)
                    mean = _forgetting(rows, method)
                    label = f"{method}, forgetting {mean.text()}" if mean else method
                    axis.plot(*points.T, _SHAPES[method], color=colour, label=label)
                    _ellipse(axis, points, colour)
                axis.set(xlabel="GSR (density)", ylabel=f"{columns[column]} (%)")
            handles, labels = axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside upper center", ncols=2)
            yield figure, axes

    return Figure(data, drawn, told)


def strength(material: Material) -> Figure | None:
    """λ against average and learning accuracy, over the points `n-lora:l1=…` of a ledger."""
    rows: list[list[Cell]] = []
    for stream in material.section.streams:
        for label, weight in _weights(material, stream):
            found = [
                material.value(label, [stream], lambda run, key=key: run.row[key])
                for key in ("average_accuracy", "learning_accuracy")
            ]
            rows.append([stream, Value(weight, form=".3g"), *found])
    rows.sort(key=lambda row: (str(row[0]), row[1].mean))  # type: ignore[union-attr]
    if len({row[1] for row in rows}) < 2:
        return None
    columns = ["order", "λ", "average", "learning"]
    data = Table("strength", "How strong the penalty is", columns, rows, [])

    @contextmanager
    def drawn() -> Iterator[tuple[Any, Any]]:
        with style.panels() as (figure, axis):
            for i, stream in enumerate(dict.fromkeys(row[0] for row in rows)):
                own = [row for row in rows if row[0] == stream and row[2] and row[3]]
                weights = [row[1].mean for row in own]  # type: ignore[union-attr]
                for column, line in ((2, "-"), (3, ":")):
                    values = [row[column].mean for row in own]  # type: ignore[union-attr]
                    axis.plot(
                        weights,
                        values,
                        line,
                        color=style.CYCLE[i],
                        marker=style.MARKERS[i],
                        label=f"{stream}, {columns[column]}",
                    )
            weights = sorted({row[1].mean for row in rows})  # type: ignore[union-attr]
            axis.set_xscale("symlog", linthresh=min(w for w in weights if w > 0))
            axis.set_xticks(weights, [f"{w:g}" for w in weights], minor=False)
            axis.minorticks_off()
            axis.set(xlabel="λ", ylabel="accuracy (%)")
            figure.legend(loc="outside upper center", ncols=2)
            yield figure, axis

    return Figure(data, drawn)


def _weights(material: Material, stream: str) -> Iterator[tuple[str, float]]:
    """The points that differ in the penalty's weight alone, on a stream with more than one."""
    found = dict[str, float]()
    for label in material.section.methods:
        runs = material.section.of(label, stream)
        weight = runs[0].settings.get("l1") if runs else None
        if _WEIGHTED.fullmatch(label) and isinstance(weight, int | float):
            found[label] = weight
    if (none := material.unpenalised(stream)) is not None:
        found[none] = 0.0
    return iter(found.items() if len(found) > 1 else ())


def divergence(material: Material) -> Figure | None:
    """How far stages moved the model against what was forgotten, a point per order and seed.

    KL(before ‖ after) on the new task's answers, which arXiv 2509.04259 takes for the best single
    predictor, and on earlier tasks'.
    """
    rows: list[list[Cell]] = []
    for method in material.section.methods:
        for stream in material.section.streams:
            for run in material.section.of(method, stream):
                known = run.row.get("kl") or {}
                measured = (known.get("own"), known.get("earlier"), run.row["forgetting"])
                numbers = [float(n) for n in measured if n is not None]
                if len(numbers) == len(measured):
                    forms = (".3f", ".3f", ".1f")
                    cells = [Value(n, form=f) for n, f in zip(numbers, forms, strict=True)]
                    rows.append([method, stream, run.seed, *cells])
    if not rows:
        return None
    columns = ["method", "order", "seed", "KL, own task", "KL, earlier tasks", "forgetting"]
    notes = ["KL(before ‖ after) of a stage in nats, the mean over answer tokens and stages"]
    data = Table("kl", "How far the model moved, and forgetting", columns, rows, notes)

    @contextmanager
    def drawn() -> Iterator[tuple[Any, Any]]:
        with style.panels(1, 2, width=style.WIDE, height=2.4, sharey=True) as (figure, axes):
            for axis, column in zip(axes, (3, 4), strict=True):
                for i, method in enumerate(dict.fromkeys(str(row[0]) for row in rows)):
                    own = [row for row in rows if row[0] == method]
                    points = np.array([[row[column].mean, row[5].mean] for row in own])  # type: ignore[union-attr]
                    look = {"color": style.colour(method, i), "label": method}
                    axis.plot(*points.T, style.MARKERS[i % len(style.MARKERS)], **look)
                axis.set(xlabel=f"{columns[column]} (nats)")
            axes[0].set(ylabel="forgetting (points)")
            handles, labels = axes[1].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside upper center", ncols=4)
            yield figure, axes

    return Figure(data, drawn)


def _forgetting(rows: list[list[Cell]], method: str) -> Value | None:
    """The mean over a method's orders and seeds."""
    values = [row[6].mean for row in rows if row[0] == method and isinstance(row[6], Value)]
    return Value(fmean(values), form=".2f") if values else None


def _ellipse(axis: Any, points: np.ndarray, colour: str) -> None:
    """The points' spread: two standard deviations along their main axes."""
    from matplotlib.patches import Ellipse

    if len(points) < 3:
        return
    sizes, directions = np.linalg.eigh(np.cov(points.T))
    width, height = 2 * _SPREAD * np.sqrt(np.maximum(sizes[::-1], 0))
    angle = float(np.degrees(np.arctan2(directions[1, 1], directions[0, 1])))
    centre = tuple(points.mean(axis=0))
    axis.add_patch(
        Ellipse(
            centre,
            width,
            height,
            angle=angle,
            fill=False,
            linestyle="--",
            edgecolor=colour,
            linewidth=0.8,
        )
    )
