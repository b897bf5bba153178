"""The picture of `nlora table --pareto`: accuracy against time of training, by what is needed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nlora.paper import style
from nlora.report.pareto import NEEDS, Point, front, points
from nlora.report.runs import Section

_SHAPES = {(): "o", ("old data",): "s", ("task identity",): "v", ("storage per task",): "D"}
_LINES = 34
"""Names in a column beside the picture."""
_DISTANCES = (8.0, 13.0, 19.0, 26.0, 34.0)
"""Of a number from its point, in points of 1/72 inch."""
_SIZE = np.array([7.5, 6.5])
"""Width and height that a number or a mark takes."""


def draw(section: Section, place: Path, key: str = "pareto") -> list[Path]:
    """Write the picture of a section as PDF, SVG and PNG; the files, none if there is nothing.

    A method has the number of its row in the table; those on the front are filled. Raises
    NloraError without matplotlib.
    """
    streams, found = points(section)
    if not found:
        return []
    columns = -(-len(found) // _LINES)
    with style.panels(width=style.WIDE + 1.6 * (columns - 1), height=4.2) as (figure, axis):
        best = {point.label for point in front(found)}
        for point in found:
            _mark(axis, point, point.label in best)
        for needed in sorted({_needed(point) for point in found}):
            shown = " and ".join(needed) or "nothing but the task's data"
            axis.plot([], [], _SHAPES.get(needed, "X"), color=_colour(needed), label=shown)
        for column in range(columns):
            rows = list(enumerate(found, start=1))[column * _LINES : (column + 1) * _LINES]
            names = "\n".join(f"{number}  {point.label}" for number, point in rows)
            axis.text(
                1.02 + 0.36 * column, 1, names, fontsize=6, va="top", transform=axis.transAxes
            )
        axis.set_xscale("log")
        for ticks in (axis.xaxis.set_major_formatter, axis.xaxis.set_minor_formatter):
            ticks("{x:.3g}")
        axis.set(xlabel="training (minutes per run)", ylabel="average accuracy (%)")
        axis.set_title(f"{section.title}; {', '.join(streams)}", loc="left", fontsize=7)
        axis.legend(title="needs (filled: on the front)", loc="best")
        _number(axis, [(point.minutes.mean, point.average.mean) for point in found])
        return style.save(figure, place, key)


def _mark(axis: Any, point: Point, filled: bool) -> None:
    needed = _needed(point)
    axis.errorbar(
        point.minutes.mean,
        point.average.mean,
        yerr=point.average.spread or 0.0,
        fmt=_SHAPES.get(needed, "X"),
        color=_colour(needed),
        markerfacecolor=_colour(needed) if filled else "white",
        elinewidth=0.4,
    )


def _number(axis: Any, places: Sequence[tuple[float, float]]) -> None:
    """Number points 1, 2, … beside them, each where fewest points and numbers are in the way."""
    per_point = axis.figure.dpi / 72  # pixels
    marks = axis.transData.transform(places) / per_point
    taken = [*marks]
    for number, (place, mark) in enumerate(zip(places, marks, strict=True), start=1):
        angles = np.arange(8) * np.pi / 4
        around = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        tried = np.concatenate([distance * around for distance in _DISTANCES])
        apart = np.abs((mark + tried)[:, None] - np.array(taken)[None]) / _SIZE
        free = np.clip(apart.max(axis=2).min(axis=1), None, 1.0)  # 1: nothing overlaps
        best = tried[int(free.argmax())]  # the first of equals, which is nearest
        taken.append(mark + best)
        far = float(np.hypot(*best)) > _DISTANCES[0]
        axis.annotate(
            str(number),
            place,
            xytext=tuple(best),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=6,
            arrowprops={"arrowstyle": "-", "linewidth": 0.3, "shrinkB": 2} if far else None,
        )


def _needed(point: Point) -> tuple[str, ...]:
    return tuple(what for what, on in zip(NEEDS.values(), point.needs, strict=True) if on)


def _colour(needed: tuple[str, ...]) -> str:
    """The same for the same needs, whatever else is drawn."""
    return style.CYCLE[sum(2**i for i, what in enumerate(NEEDS.values()) if what in needed)]
