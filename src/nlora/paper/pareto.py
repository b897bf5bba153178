"""The picture of `nlora table --pareto`: accuracy against time of training, by what is needed."""

from pathlib import Path
from typing import Any

from nlora.paper import style
from nlora.report.pareto import NEEDS, Point, front, points
from nlora.report.runs import Section

_SHAPES = {(): "o", ("old data",): "s", ("task identity",): "v", ("storage per task",): "D"}
_LINES = 34
"""Names in a column beside the picture."""


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
        for number, point in enumerate(found, start=1):
            axis.annotate(
                str(number),
                (point.minutes.mean, point.average.mean),
                xytext=(4, 2),
                textcoords="offset points",
                fontsize=6,
            )
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


def _needed(point: Point) -> tuple[str, ...]:
    return tuple(what for what, on in zip(NEEDS.values(), point.needs, strict=True) if on)


def _colour(needed: tuple[str, ...]) -> str:
    """The same for the same needs, whatever else is drawn."""
    return style.CYCLE[sum(2**i for i, what in enumerate(NEEDS.values()) if what in needed)]
