"""Tables for people: in a terminal, as text, in a notebook."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from nlora.report.table import Cell, Table, Value, text
from nlora.visible import visible

if TYPE_CHECKING:
    from rich.table import Table as RichTable

WIDTH = 160
"""Of a text, at most."""
BETWEEN = 3
"""Characters between two columns."""
MOST = 24
"""A cell of more characters than these is a text, whose words may stand below each other."""


def laid_out(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], form: str = ".1f"
) -> RichTable:
    """A table for rich; None is a dash, numbers stand on the right, fractions as `form` says."""
    from rich.table import Table as Rich

    made = Rich(title=visible(title) or None, title_justify="left", show_edge=False, pad_edge=False)
    for i, name in enumerate(columns):
        numeric = all(isinstance(row[i], int | float | None) for row in rows) and bool(rows)
        made.add_column(visible(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        made.add_row(*(_cell(value, form) for value in row))
    return made


def fitted(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    width: int,
    form: str = ".1f",
) -> list[RichTable]:
    """The same in as many tables as it takes for no short cell to be torn apart at this width.

    The leading columns, which say what a row is about, stand in each; the title in the first.
    """
    least = [
        max([_longest(name), *(_narrowest(_cell(row[i], form)) for row in rows)])
        for i, name in enumerate(columns)
    ]
    keys = _keys(rows, len(columns))
    parts: list[list[int]] = [[]]
    for i in range(keys, len(columns)):
        wide = sum(least[j] + BETWEEN for j in [*range(keys), *parts[-1], i]) - BETWEEN
        if parts[-1] and wide > width:
            parts.append([])
        parts[-1].append(i)
    made = []
    for number, part in enumerate(parts):
        shown = [*range(keys), *part]
        chosen = [[row[i] for i in shown] for row in rows]
        named = [columns[i] for i in shown]
        table = laid_out("" if number else title, named, chosen, form)
        for column, i in zip(table.columns, shown, strict=True):
            column.min_width = min(least[i], MOST)
        made.append(table)
    return made


def _keys(rows: Sequence[Sequence[Any]], columns: int) -> int:
    """How many leading columns are no figures: one at least, two at most."""
    some = [i for i in range(min(2, columns)) if not all(_is_figure(row[i]) for row in rows)]
    return 2 if some == [0, 1] and columns > 2 else 1


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float | None) or str(value)[:1] in "0123456789+-–±"


def _narrowest(cell: str) -> int:
    """The width that a cell needs: all of a short one, the longest word of a text."""
    return len(cell) if len(cell) <= MOST else _longest(cell)


def _longest(words: str) -> int:
    return max(map(len, words.split()), default=0)


def _cell(value: Any, form: str) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return format(value, form)
    return visible(str(value)).replace("[", "\\[")


def cells(table: Table) -> list[list[Any]]:
    """The rows as `laid_out` takes them: a bare number stands on the right."""
    return [[_plain(cell) for cell in row] for row in table.rows]


def _plain(cell: Cell) -> Any:
    bare = isinstance(cell, Value) and cell.low is None and cell.form == ".1f"
    if bare and isinstance(cell, Value):
        return cell.mean
    return cell if cell is None or isinstance(cell, int) else text(cell)


def as_text(tables: Iterable[Table]) -> str:
    """Tables one below the other, notes below each, without colours.

    >>> print(as_text([Table("t", "Accuracy", ["task", "%"], [["mail", Value(50.0)]], ["of 2"])]))
    Accuracy
    task ┃    %
    ━━━━━╇━━━━━
    mail │ 50.0
    of 2
    """
    from rich.console import Console

    parts = []
    for table in tables:
        console = Console(file=io.StringIO(), width=WIDTH, color_system=None)
        console.print(laid_out(table.title, table.columns, cells(table)))
        lines = [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
        parts.append("\n".join([*lines, *map(visible, table.notes)]))
    return "\n\n".join(parts)


def as_html(tables: Iterable[Table]) -> str:
    """Tables one below the other, notes below each.

    >>> as_html([Table("t", "<a>", ["task", "%"], [["mail", Value(50.0)]])])
    '<table><caption>&lt;a&gt;</caption><tr><th>task</th><th>%</th></tr>\
<tr><td>mail</td><td>50.0</td></tr></table>'
    """
    return "".join(map(_html, tables))


def _html(table: Table) -> str:
    def row(values: Iterable[str], tag: str) -> str:
        return "".join(f"<{tag}>{escape(visible(value))}</{tag}>" for value in values)

    title = f"<caption>{escape(visible(table.title))}</caption>" if table.title else ""
    rows = [row(table.columns, "th"), *(row(map(text, cells), "td") for cells in table.rows)]
    body = "".join(f"<tr>{one}</tr>" for one in rows)
    notes = "".join(f"<p>{escape(visible(note))}</p>" for note in table.notes)
    return f"<table>{title}{body}</table>{notes}"
