"""One look for all figures: column width, vector text, colours that all eyes tell apart."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nlora.errors import NloraError

COLUMN = 3.3
"""Width of a figure in one column of the paper, inches."""

WIDE = 6.9
"""Width over both columns."""

# Okabe and Ito's palette, "Color Universal Design" (2008).
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, RED, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY = "#999999"
CYCLE = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY, BLACK, YELLOW)

OF_METHOD = {"o-lora": BLUE, "n-lora": RED, "o-lora+n-lora": PURPLE, "zero-shot": GREY}
"""As in the paper: O-LoRA blue, N-LoRA red."""

_FREE = tuple(colour for colour in CYCLE if colour not in OF_METHOD.values())

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

_LOOK: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.0,
    "lines.markersize": 4,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "nlora",
    "pdf.fonttype": 42,
}

ENDINGS = ("pdf", "svg", "png")


def colour(method: str, index: int = 0) -> str:
    """A method's colour: its own, or that of its place in a list, which is no other's own."""
    return OF_METHOD.get(method, _FREE[index % len(_FREE)])


@contextmanager
def panels(
    rows: int = 1, columns: int = 1, width: float = COLUMN, height: float = 2.2, **more: Any
) -> Iterator[tuple[Any, Any]]:
    """A figure and its axes (an array of them, if several), closed afterwards.

    Raises NloraError without matplotlib.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise NloraError("matplotlib is missing: pip install 'nlora[figures]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    with matplotlib.rc_context(_LOOK):
        figure, axes = pyplot.subplots(rows, columns, figsize=(width, height), **more)
        try:
            yield figure, axes
        finally:
            pyplot.close(figure)


def save(figure: Any, place: Path, key: str) -> list[Path]:
    """Write a figure as PDF, SVG and PNG, the same bytes each time; the files."""
    dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": None}
    paths = [place / f"{key}.{ending}" for ending in ENDINGS]
    for path, ending in zip(paths, ENDINGS, strict=True):
        figure.savefig(path, dpi=200, metadata=dates[ending])
    return paths
