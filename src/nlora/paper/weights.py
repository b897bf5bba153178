"""Figures 2 and 3, and spectra: the updates themselves, read from model directories."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from nlora.paper import style
from nlora.paper.figure import Figure, beside_row
from nlora.paper.material import Material
from nlora.paper.published import FIGURE_2, FIGURE_3, STANDARD
from nlora.report.overlap import MEASURES
from nlora.report.table import Cell, Table, Value

if TYPE_CHECKING:
    from nlora.adapters.peft_files import PeftAdapter

METHODS = ("o-lora", "n-lora")
_TOLD = {"average": lambda run: run.row["average_accuracy"], "OO": MEASURES["OO"]}
"""What the paper tells of the two methods beside figure 2."""
THRESHOLDS = {"1e-3": lambda update: 1e-3, "0.1rms": lambda update: 0.1 * _rms(update)}
PIXELS = 256
"""An update's picture has at most so many rows and columns, cut from its corner."""


def figure_2(material: Material) -> Figure | None:
    """Where the updates of the first two tasks stand in one matrix, and where they collide."""
    found = _adapters(material)
    if not found:
        return None
    stream, names = found[0][1], [adapter.name for adapter in found[0][2][:2]]
    rows: list[list[Cell]] = []
    pictures: dict[tuple[str, str], np.ndarray] = {}
    for method, _, adapters in found:
        if len(adapters) < 2:
            return None
        module = list(adapters[0].shapes)[len(adapters[0].shapes) // 2]
        first, second = (_update(adapter, module) for adapter in adapters[:2])
        for name, threshold in THRESHOLDS.items():
            one, two = abs(first) > threshold(first), abs(second) > threshold(second)
            pictures[method, name] = (one + 2 * two)[:PIXELS, :PIXELS]
            shares = [100 * s.mean() for s in (one & ~two, two & ~one, one & two)]
            cells: list[Cell] = [Value(float(share), form=".3g") for share in shares]
            rows.append([method, name, module, *cells])
    told = tuple(
        beside_row(method, stream, what, ours, theirs, ".1f")
        for method, _, _ in found
        for what, theirs in FIGURE_2[method].items()
        if (ours := material.value(method, [stream], _TOLD[what]))
    )
    tasks = ", ".join(f"task {n} is {name}" for n, name in enumerate(names, start=1))
    notes = [
        tasks,
        "the paper gives no threshold: an absolute one and one relative to the update",
    ]
    columns = ["method", "threshold", "matrix", "task 1 alone", "task 2 alone", "both"]
    title = f"Parameters of two tasks and their collisions (% of the entries), {stream}"
    data = Table("figure-2", title, columns, rows, notes)

    @contextmanager
    def drawn() -> Iterator[tuple[Any, Any]]:
        from matplotlib.colors import ListedColormap
        from matplotlib.patches import Patch

        colours = ["white", style.GREEN, style.BLUE, style.RED]
        methods = list(dict.fromkeys(method for method, _ in pictures))
        shape = (len(methods), len(THRESHOLDS))
        size: Any = {"width": style.COLUMN, "height": 1.7 * len(methods) + 0.3}
        with style.panels(*shape, **size, squeeze=False) as (figure, axes):
            for (method, name), picture in pictures.items():
                axis = axes[methods.index(method), list(THRESHOLDS).index(name)]
                axis.imshow(
                    picture,
                    cmap=ListedColormap(colours),
                    vmin=0,
                    vmax=3,
                    interpolation="nearest",
                    rasterized=True,
                )
                axis.set(title=f"{method}, {name}", xticks=[], yticks=[])
            labels = (*names, "both")
            handles = [Patch(color=c, label=n) for c, n in zip(colours[1:], labels, strict=True)]
            figure.legend(handles=handles, loc="outside lower center", ncols=3)
            yield figure, axes

    return Figure(data, drawn, told)


def figure_3(material: Material) -> Figure | None:
    """The nuclear norm of the first task's update in every matrix, and their mean."""
    found = _adapters(material)
    if not found:
        return None
    norms = {
        method: [float(_singular(adapters[0], module).sum()) for module in adapters[0].shapes]
        for method, _, adapters in found
    }
    first = found[0][2][0].name
    rows: list[list[Cell]] = [
        [method, number, Value(norm, form=".3g")]
        for method, values in norms.items()
        for number, norm in enumerate(values)
    ]
    told = tuple(
        beside_row(m, found[0][1], "mean", Value(fmean(v), form=".2f"), FIGURE_3[m], ".2f")
        for m, v in norms.items()
    )
    notes = [f"of the first task, {first}, where O-LoRA has no earlier task to be orthogonal to"]
    columns = ["method", "matrix", "nuclear norm"]
    data = Table("figure-3", "Nuclear norm by matrix, first task", columns, rows, notes)

    @contextmanager
    def drawn() -> Iterator[tuple[Any, Any]]:
        size: Any = {"width": style.COLUMN, "height": 1.5 * len(norms)}
        with style.panels(len(norms), **size, squeeze=False, sharex=True) as (figure, axes):
            for axis, (method, values) in zip(axes.flat, norms.items(), strict=True):
                axis.bar(range(len(values)), values, 1.0, color=style.colour(method))
                axis.axhline(fmean(values), linestyle="--", color=style.BLACK, linewidth=0.8)
                said = f"mean {fmean(values):.2f}; paper: {FIGURE_3[method]:.2f}"
                axis.set(ylabel="nuclear norm", title=f"{method} ({said})")
            axes.flat[-1].set_xlabel("matrix")
            yield figure, axes

    return Figure(data, drawn, told)


def spectra(material: Material) -> Figure | None:
    """The singular values of the first task's update, each matrix a line."""
    values = {
        method: [_singular(adapters[0], module) for module in adapters[0].shapes]
        for method, _, adapters in _adapters(material)
    }
    if not values:
        return None
    rows: list[list[Cell]] = [
        [method, matrix, place, Value(float(value), form=".3g")]
        for method, matrices in values.items()
        for matrix, spectrum in enumerate(matrices)
        for place, value in enumerate(spectrum, start=1)
    ]
    columns = ["method", "matrix", "place", "singular value"]
    data = Table("spectra", "Singular values of the first task's update", columns, rows, [])

    @contextmanager
    def drawn() -> Iterator[tuple[Any, Any]]:
        size: Any = {"width": style.COLUMN, "height": 2.0}
        with style.panels(1, len(values), **size, squeeze=False, sharey=True) as (figure, axes):
            for axis, (method, matrices) in zip(axes.flat, values.items(), strict=True):
                for spectrum in matrices:
                    axis.semilogy(
                        range(1, len(spectrum) + 1),
                        spectrum,
                        linewidth=0.4,
                        color=style.colour(method),
                    )
                axis.set(title=method, xlabel="place")
            axes.flat[0].set_ylabel("singular value")
            yield figure, axes

    return Figure(data, drawn)


def _adapters(material: Material) -> "list[tuple[str, str, list[PeftAdapter]]]":
    """Method, stream and updates of the first standard order of which models are there."""
    from nlora.analysis.adapters import read_stages

    for stream in (*STANDARD, *material.section.streams):
        places: dict[str, Path | None] = {m: material.model(m, stream) for m in METHODS}
        there = [(m, place) for m, place in places.items() if place is not None]
        if there:
            return [(method, stream, read_stages(place)) for method, place in there]
    return []


def _update(adapter: "PeftAdapter", module: str) -> np.ndarray:
    return adapter.factors(module).delta().float().cpu().numpy()


def _singular(adapter: "PeftAdapter", module: str) -> np.ndarray:
    from nlora.lowrank.factors import svd

    return svd(adapter.factors(module)).S.float().cpu().numpy()


def _rms(update: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(update, dtype=np.float64))))
