"""The rows of JSON and plain text, and where each of them stands, so that an error can name it.

Each reader takes the text of a file, and a `Report` that is told of each malformed row.
"""

import codecs
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NoReturn

from nlora.data.messages import LISTS
from nlora.errors import NloraError


class _Twice(Exception):
    """A key that stands twice in one object, of which only one value could be read."""


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Twice(_twice([key for key, _ in pairs]))
    return found


def _twice(names: Sequence[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if name and count > 1), None)


# Numbers stay the text that was written ("1.50"), and NaN, pandas' missing value, is missing.
_DECODER = json.JSONDecoder(
    parse_int=str, parse_float=str, parse_constant=lambda _: None, object_pairs_hook=_once
)
STDIN = Path("-")
_MARK = "\ufeff"
"""The byte order mark, of which programs that add one to what has one make two."""
_BETWEEN = re.compile(r"[\s,]*")
_NAMED = 5
"""Blank lines that are named."""

Report = Callable[[str], object]
"""Called with a problem, one line of text: stops at it, or notes it and goes on."""


def stop(problem: str) -> NoReturn:
    """The `Report` that ends reading at the first problem."""
    raise NloraError(problem) from None


@dataclass(frozen=True, slots=True)
class Rows:
    """What a file holds: `values` in order, and `place(i)`: file and line of value i, in words.

    `names` are those of a column's numbers, where the file has them (`ClassLabel` of `datasets`).
    `format` says in words what the file was read as, `delimiter` what stands between its cells,
    `notes` what was left out.
    """

    path: Path | str
    values: list[object]
    place: Callable[[int], str]
    format: str = ""
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    delimiter: str | None = None
    notes: tuple[str, ...] = ()


def read_bytes(path: Path) -> bytes:
    """What is in a file, or comes from `STDIN`. Raises NloraError when it cannot be read."""
    try:
        return sys.stdin.buffer.read() if path == STDIN else path.read_bytes()
    except FileNotFoundError:
        raise NloraError(f"no such file: {path}") from None
    except OSError as error:
        raise NloraError(f"cannot read {path}: {error.strerror}") from None


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, or of `STDIN`, without a byte order mark, line ends as they are.

    Raises NloraError when the file is missing, cannot be read, is empty or is not UTF-8.
    """
    return decoded(read_bytes(path), path)


def decoded(data: bytes, path: Path, encoding: str | None = None) -> str:
    """The text of a file's bytes: UTF-8, with or without a byte order mark, unless told otherwise.

    Raises NloraError for nothing but spaces, an unknown encoding, and bytes that are not in it.
    """
    try:
        name = codecs.lookup(encoding or "utf-8").name
    except (LookupError, ValueError):
        raise NloraError(f"{path}: Python knows no encoding '{encoding}'") from None
    try:
        text = data.decode(name).lstrip(_MARK)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = f"byte 0x{data[error.start]:02x} at offset {error.start}"
        place = f"{path}, line {line}: not {'UTF-8' if name == 'utf-8' else encoding} ({byte})"
        raise NloraError(f"{place}; {_advice(data, name)}") from None
    except (UnicodeError, LookupError) as error:  # no codec of texts, or a broken mark of it
        raise NloraError(f"{path}: cannot be read as {encoding}: {error}") from None
    if not text.strip():
        raise NloraError(f"{path}: the file is empty")
    if name == "utf-8" and text.count("\0") * 4 > len(text):
        raise NloraError(f"{path}: not UTF-8 (every other byte is 0); {_advice(data, name)}")
    return text


def _advice(data: bytes, name: str) -> str:
    """What to do with bytes that are not in the encoding of this name."""
    head = data[:10_000]
    likely = "cp1252"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        likely = "utf-16"
    elif head.count(0) * 4 > len(head):
        likely = "utf-16-le" if data[1:2] == b"\0" else "utf-16-be"
    elif sum(byte > 127 for byte in head) * 4 > len(head):  # hardly in a western language
        likely = "cp1251, gb18030 or shift_jis"
    if name == likely:
        return "save it as UTF-8"
    return f"save it as UTF-8, or say which encoding it has (encoding: {likely}, perhaps)"


def read_array(path: Path, text: str | None = None) -> Rows:
    """The elements of a file that is one JSON array.

    Raises NloraError when the file cannot be read, is malformed or holds something else.
    """
    text = read_text(path) if text is None else text
    values = _decode(text, f"{path}", line=0)
    if not isinstance(values, list):
        raise NloraError(f"{path}: must be a JSON array, as in [...]")

    @cache
    def lines() -> list[int]:
        return _lines_of_elements(text, len(values))

    return Rows(path, values, lambda i: f"{path}, line {lines()[i]}, example {i + 1}", "JSON")


def read_object(path: Path, text: str) -> Rows:
    """The elements of the one list of rows that a JSON object holds, as `{"data": [...]}`.

    An object of values alone, or with the turns of a chat, is a row itself. Raises NloraError when
    it is malformed, or has no such list or several.
    """
    value = _decode(text, f"{path}", line=0)
    assert isinstance(value, dict)
    lists = [key for key, inner in value.items() if _is_rows(inner)]
    if any(key.lower() in (*LISTS, "prompt") and _are_turns(value[key]) for key in lists):
        return Rows(path, [value], lambda i: f"{path}", "JSON")
    if len(lists) == 1:
        rows = value[lists[0]]
        return Rows(path, rows, lambda i: f"{path}, example {i + 1}", f"JSON, its '{lists[0]}'")
    if lists or any(isinstance(inner, (list, dict)) for inner in value.values()):
        found = f"{len(lists)} lists of rows" if lists else "no list of rows"
        raise NloraError(f"{path}: a JSON object with {found}; one array of rows is read")
    return Rows(path, [value], lambda i: f"{path}", "JSON")


def _is_rows(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def _are_turns(rows: list[dict[str, object]]) -> bool:
    return all(row.keys() >= {"role", "content"} or row.keys() >= {"from", "value"} for row in rows)


def read_jsonl(path: Path, text: str, report: Report = stop) -> Rows:
    """The values of a text with one JSON value per line; blank lines do not count.

    A malformed line is reported.
    """
    values, lines = [], []
    # Only "\n" ends a line: str.splitlines would also cut at U+2028 inside a text.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                values.append(_decode(line, f"{path}", number))
            except NloraError as error:
                report(str(error))
            else:
                lines.append(number)
    return Rows(path, values, lambda i: f"{path}, line {lines[i]}", "JSONL")


def read_lines(path: Path, text: str) -> Rows:
    """The lines of a text, without blank ones, of which `notes` tells."""
    lines = dict(enumerate(text.removesuffix("\n").split("\n"), start=1))
    blank = [str(number) for number, line in lines.items() if not line.strip()]
    found = [number for number, line in lines.items() if line.strip()]
    more = ", …" if len(blank) > _NAMED else ""
    are = "is" if len(blank) == 1 else "are"
    said = f"{path}: {len(blank)} of {len(lines)} lines {are} blank and left out"
    return Rows(
        path,
        [lines[number].removesuffix("\r") for number in found],
        lambda i: f"{path}, line {found[i]}",
        notes=(f"{said} ({', '.join(blank[:_NAMED])}{more})",) if blank else (),
    )


def check_names(place: str, names: Sequence[str], hint: str = "") -> None:
    """Raises NloraError where two columns have one name, since only one could be read."""
    if twice := _twice(names):
        raise NloraError(f"{place}: two columns are called '{twice}'; rename one{hint}")


def _decode(text: str, path: str, line: int) -> object:
    """The JSON value of a text that starts on this line of the file (0: the text is the file)."""
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        place = f"{path}, line {line or error.lineno}, column {error.colno}"
        raise NloraError(f"{place}: malformed JSON: {error.msg}") from None
    except (RecursionError, _Twice) as error:
        place = f"{path}, line {line}" if line else path
        twice = f"an object has the key '{error}' twice"
        told = twice if isinstance(error, _Twice) else "malformed JSON: nested too deeply"
        raise NloraError(f"{place}: {told}") from None


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
