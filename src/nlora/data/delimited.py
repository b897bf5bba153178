"""The rows of delimited text, such as CSV, read as `data.rows` reads others."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from nlora.data.rows import Report, Rows, check_names, stop
from nlora.errors import NloraError

NAMES = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}


def read_delimited(path: Path, text: str, delimiter: str, report: Report = stop) -> Rows:
    """The rows of a delimited text as dictionaries by the names in its first row.

    A row with more or fewer cells than the header is reported. Raises NloraError when a quote is
    not closed.
    """
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        strict=True,
        skipinitialspace=spaced(text, delimiter),
    )
    header: list[str] = []
    values: list[object] = []
    lines: list[int] = []
    start = 1
    try:
        for cells in reader:
            if not header:
                header = _header(path, cells)
            elif cells and len(cells) != len(header):
                report(
                    f"{path}, line {start}: the row has {len(cells)} cells, the header "
                    f"{len(header)}; put double quotes around texts that hold line breaks or "
                    f"{NAMES[delimiter]}"
                )
            elif cells:
                values.append(dict(zip(header, cells, strict=True)))
                lines.append(start)
            start = reader.line_num + 1
    except csv.Error as error:
        raise NloraError(f"{path}, line {start}: malformed CSV: {error}") from None
    return _table(path, values, lines, delimiter)


def _table(path: Path, values: list[object], lines: Sequence[int], delimiter: str) -> Rows:
    between = f"{NAMES[delimiter]} between"
    return Rows(path, values, lambda i: f"{path}, line {lines[i]}", between, delimiter=delimiter)


def spaced(text: str, delimiter: str) -> bool:
    """Whether a space follows each delimiter in the first row, and so belongs to no cell."""
    try:
        header = next(csv.reader(io.StringIO(text[:65536], newline=""), delimiter=delimiter), [])
    except csv.Error:
        return False
    return len(header) > 1 and all(cell.startswith(" ") for cell in header[1:])


def read_tabs(path: Path, text: str, report: Report = stop) -> Rows:
    """`read_delimited` by tabs; where quotes do not fit, they are letters as all others.

    They do not fit where fewer rows are wrong without them, nor where they make one cell of several
    lines that are whole rows.
    """
    wrong: list[str] = []
    try:
        found = read_delimited(path, text, "\t", wrong.append)
    except NloraError:
        return _read_literally(path, text, report)
    cells = (cell for row in found.values if isinstance(row, dict) for cell in row.values())
    if wrong or any("\t" in cell and "\n" in cell for cell in cells):
        without: list[str] = []
        literal = _read_literally(path, text, without.append)
        if not without or len(without) < len(wrong):
            found, wrong = literal, without
    for problem in wrong:
        report(problem)
    return found


def _read_literally(path: Path, text: str, report: Report) -> Rows:
    header: list[str] = []
    values: list[object] = []
    lines: list[int] = []
    for number, line in enumerate(text.split("\n"), start=1):
        cells = line.removesuffix("\r").split("\t")
        if not header:
            header = _header(path, cells)
        elif len(cells) == len(header):
            values.append(dict(zip(header, cells, strict=True)))
            lines.append(number)
        elif line.strip():
            place = f"{path}, line {number}"
            report(f"{place}: the row has {len(cells)} cells, the header {len(header)}")
    return _table(path, values, lines, "\t")


def _header(path: Path, cells: Sequence[str]) -> list[str]:
    """The names of columns. Raises NloraError where two have one name."""
    header = [cell.strip() for cell in cells]
    check_names(f"{path}, line 1", header, "; if the file has no header, add one, e.g. text, label")
    return header
