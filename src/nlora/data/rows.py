"""The rows of JSON and CSV files, and where each of them stands, so that an error can name it."""

import codecs
import csv
import io
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nlora.errors import NloraError

# Numbers stay the text that was written ("1.50"), and NaN, pandas' missing value, is missing.
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=lambda _: None)
STDIN = Path("-")
_BETWEEN = re.compile(r"[\s,]*")


@dataclass(frozen=True, slots=True)
class Rows:
    """What a file holds: `values` in order, and `place(i)`: file and line of value i, in words."""

    path: Path
    values: list[object]
    place: Callable[[int], str]


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, or of `STDIN`, without a byte order mark, line ends as they are.

    Raises NloraError when the file is missing, cannot be read, is empty or is not UTF-8.
    """
    try:
        data = sys.stdin.buffer.read() if path == STDIN else path.read_bytes()
    except FileNotFoundError:
        raise NloraError(f"no such file: {path}") from None
    except OSError as error:
        raise NloraError(f"cannot read {path}: {error.strerror}") from None
    data = data.removeprefix(codecs.BOM_UTF8)
    if not data.strip():
        raise NloraError(f"{path}: the file is empty")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = f"byte 0x{data[error.start]:02x} at offset {error.start}"
        raise NloraError(f"{path}, line {line}: not UTF-8 ({byte}); save it as UTF-8") from None


def read_array(path: Path) -> Rows:
    """The elements of a file that is one JSON array.

    Raises NloraError when the file cannot be read, is malformed or holds something else.
    """
    text = read_text(path)
    values = _decode(text, f"{path}", line=0)
    if not isinstance(values, list):
        raise NloraError(f"{path}: must be a JSON array, as in [...]")

    @cache
    def lines() -> list[int]:
        return _lines_of_elements(text, len(values))

    return Rows(path, values, lambda i: f"{path}, line {lines()[i]}, example {i + 1}")


def read_jsonl(path: Path) -> Rows:
    """The values of a file with one JSON value per line; blank lines do not count.

    Raises NloraError when the file cannot be read or a line is malformed.
    """
    values, lines = [], []
    # Only "\n" ends a line: str.splitlines would also cut at U+2028 inside a text.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            values.append(_decode(line, f"{path}", number))
            lines.append(number)
    return Rows(path, values, lambda i: f"{path}, line {lines[i]}")


def read_lines(path: Path) -> Rows:
    """The lines of a text file; blank ones do not count. Raises NloraError as `read_text` does."""
    lines = enumerate(read_text(path).split("\n"), start=1)
    found = [(number, line.removesuffix("\r")) for number, line in lines if line.strip()]
    return Rows(path, [line for _, line in found], lambda i: f"{path}, line {found[i][0]}")


def read_csv(path: Path) -> Rows:
    """The rows of a comma-separated file as dictionaries by the names in its first row.

    Raises NloraError when the file cannot be read, a quote is not closed or a row has more or
    fewer cells than the header.
    """
    text = read_text(path)
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    values: list[object] = []
    lines: list[int] = []
    start = 1
    try:
        for cells in reader:
            if not header:
                header = [cell.strip() for cell in cells]
            elif cells:
                if len(cells) != len(header):
                    raise NloraError(
                        f"{path}, line {start}: the row has {len(cells)} cells, the header "
                        f"{len(header)}; put double quotes around texts that hold commas"
                    )
                values.append(dict(zip(header, cells, strict=True)))
                lines.append(start)
            start = reader.line_num + 1
    except csv.Error as error:
        raise NloraError(f"{path}, line {start}: malformed CSV: {error}") from None
    return Rows(path, values, lambda i: f"{path}, line {lines[i]}")


def _decode(text: str, path: str, line: int) -> object:
    """The JSON value of a text that starts on this line of the file (0: the text is the file)."""
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        place = f"{path}, line {line or error.lineno}, column {error.colno}"
        raise NloraError(f"{place}: malformed JSON: {error.msg}") from None
    except RecursionError:
        place = f"{path}, line {line}" if line else path
        raise NloraError(f"{place}: malformed JSON: nested too deeply") from None


def _lines_of_elements(text: str, count: int) -> list[int]:
    """The lines on which the elements of a well-formed JSON array start."""
    lines, line, seen = [], 1, 0
    at = text.index("[") + 1
    for _ in range(count):
        match = _BETWEEN.match(text, at)
        at = match.end() if match else at
        line += text.count("\n", seen, at)
        lines.append(line)
        seen = at
        at = _DECODER.raw_decode(text, at)[1]
    return lines
