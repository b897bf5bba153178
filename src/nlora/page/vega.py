"""Pieces of Vega-Lite specifications that the charts of a page are made of."""

from collections.abc import Sequence
from typing import Any

from nlora.paper.style import BLUE, GREEN, ORANGE, PURPLE, RED, SKY

COLOURS = [BLUE, RED, GREEN, ORANGE, PURPLE, SKY]
"""Those of the figures that can be seen on white and on black."""

DASHES = [[1, 0], [6, 2], [2, 2], [8, 2, 2, 2]]
SHAPES = ["circle", "diamond", "square", "triangle-up"]

_TICKS = 20
"""Stages that are numbered below a chart, at most."""

Json = dict[str, Any]


def accuracy_lines(
    values: list[Json], by: str, names: Sequence[str], choose: Sequence[str] = ()
) -> Json:
    """Accuracy over stages, a line for each; with `choose`, those of a method that is chosen."""
    several = len(choose) > 1
    stages = [value["stage"] for value in values] or [1]
    step = -(-(max(stages) - min(stages) + 1) // _TICKS)
    return {
        "data": {"values": values},
        "params": [legend(by), *([choice("method", choose)] if several else [])],
        "transform": [{"filter": "datum.method == method"}] if several else [],
        "height": height(names),
        "mark": {"type": "line", "point": {"size": 40}, "tooltip": True},
        "encoding": {
            "x": {
                "field": "stage",
                "type": "quantitative",
                "title": "stage",
                "axis": {"values": list(range(min(stages), max(stages) + 1, step)), "format": "d"},
                "scale": {"nice": False},
            },
            "y": number("accuracy", "accuracy (%)"),
            "color": colours(by, names),
            "strokeDash": cycled(by, names, DASHES),
            "opacity": picked(by),
            "tooltip": [{"field": field} for field in (by, "stage", "accuracy")],
        },
    }


def rate_map(
    values: list[Json],
    across: str,
    names: Sequence[str],
    matrices: dict[str, None],
    choose: Sequence[str] = (),
) -> Json:
    """A rate in each matrix, as colours."""
    several = len(choose) > 1
    return {
        "data": {"values": values},
        "params": [choice("method", choose)] if several else [],
        "transform": [{"filter": "datum.method == method"}] if several else [],
        "height": max(len(matrices) * (11 if len(matrices) > 12 else 22), 60),
        "mark": {"type": "rect", "tooltip": True},
        "encoding": {
            "x": {
                "field": across,
                "type": "nominal",
                "sort": list(names),
                "title": across,
                "axis": {"labelAngle": -40, "labelLimit": 120},
            },
            "y": {
                "field": "matrix",
                "type": "nominal",
                "sort": list(matrices),
                "title": None,
                "axis": {"labelLimit": 170, "labelOverlap": True},
            },
            "color": {
                "field": "rate",
                "type": "quantitative",
                "title": "%",
                "scale": {"scheme": "viridis", "domainMin": 0},
            },
            "tooltip": [{"field": field} for field in ("matrix", across, "rate")],
        },
    }


def number(field: str, title: str | None) -> Json:
    """A field on an axis of numbers."""
    return {"field": field, "type": "quantitative", "title": title, "scale": {"zero": False}}


def colours(field: str, names: Sequence[str]) -> Json:
    """The colour of each of a field's values."""
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(names))]
    scale = {"domain": list(names), "range": colours}
    return {"field": field, "type": "nominal", "title": None, "sort": None, "scale": scale}


def cycled(field: str, names: Sequence[str], looks: Sequence[Any]) -> Json:
    """Another look each time that the colours begin anew."""
    found = [looks[i // len(COLOURS) % len(looks)] for i in range(len(names))]
    scale = {"domain": list(names), "range": found}
    return {"field": field, "type": "nominal", "title": None, "sort": None, "scale": scale}


def height(names: Sequence[str]) -> int:
    """Of a chart beside which the legend of these names fits, pixels."""
    return max(260, 14 * len(names) + 20)


def legend(field: str) -> Json:
    """A click on a name shows it alone."""
    return {"name": "picked", "select": {"type": "point", "fields": [field]}, "bind": "legend"}


def picked(field: str) -> Json:
    """How well what `legend` leaves out is seen."""
    return {"condition": {"param": "picked", "value": 1}, "value": 0.12}


def choice(name: str, options: Sequence[str]) -> Json:
    """A list to choose one of the options from."""
    return {
        "name": name,
        "value": options[0],
        "bind": {"input": "select", "options": list(options), "name": f"{name} "},
    }


def short(value: float | None, digits: int = 4) -> float | None:
    """A number to so many digits, which is enough to be drawn."""
    return None if value is None else float(f"{value:.{digits}g}")
