"""A figure: the numbers that it shows, as a table, and how they are drawn."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlora.paper import style
from nlora.report.formats import comma_separated
from nlora.report.table import Table


@dataclass(frozen=True)
class Figure:
    """`data` goes beside it as CSV; its notes tell what the paper's figure says."""

    data: Table
    drawn: Callable[[], AbstractContextManager[tuple[Any, Any]]]
    """Gives the figure and its axes, as `style.panels` does, with everything drawn."""

    def write(self, place: Path) -> list[Path]:
        """PDF, SVG, PNG and CSV in a folder."""
        csv = place / f"{self.data.key}.csv"
        csv.write_text(comma_separated(self.data), encoding="utf-8")
        with self.drawn() as (figure, _):
            return [*style.save(figure, place, self.data.key), csv]
