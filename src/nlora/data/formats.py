"""What a file is, told by what is in it, and its rows.

JSON lines, a JSON array, commas, tabs, semicolons or bars between cells, Parquet, Arrow, each also
as .gz, .zst, .bz2 or .xz; a folder that `datasets` has saved; and `hf://owner/name`. A name's
ending decides only where the content leaves it open.
"""

import csv
import io
import json
import os
import re
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from nlora.data.columns import obvious
from nlora.data.compression import SUFFIXES, unpacked
from nlora.data.delimited import read_delimited, read_tabs, spaced
from nlora.data.functions import function, is_function
from nlora.data.memory import InMemory, is_dataset, read_memory
from nlora.data.rows import (
    STDIN,
    Report,
    Rows,
    decoded,
    read_array,
    read_bytes,
    read_jsonl,
    read_lines,
    read_object,
)
from nlora.data.tables import (
    HUB,
    is_saved,
    read_arrow,
    read_parquet,
    read_saved,
    split_in,
    split_of,
)
from nlora.errors import NloraError

Source = Path | str | InMemory
"""A file or folder, an `hf://` name, or rows in memory."""

_JSONL = (".jsonl", ".ndjson")
_TABLES = (".csv", ".tsv", ".tab", ".psv")
KNOWN = (*_JSONL, ".json", *_TABLES, ".parquet", ".arrow")
"""Endings of files that hold rows."""
YAML = (".yaml", ".yml")
"""Endings of files that say which files hold rows."""
_NOT_READ = (
    (b"PK\x03\x04", "a zip archive or an Excel workbook; unpack it, or save it as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook; save it as CSV"),
    (b"SQLite format 3", "an SQLite database; save the table as CSV"),
    (b"%PDF", "a PDF"),
)


def source(name: str, base: Path) -> Source:
    """What a name in a file of the folder `base` stands for.

    Raises NloraError for a function that its plug-in file does not have.
    """
    if name.startswith(HUB):
        return name
    if is_function(name):
        return function(name)
    # Unlike Path.expanduser, os.path leaves "~stranger" as it is, to be reported as missing.
    return base / os.path.expanduser(name)


def absolute(place: Path | str) -> str:
    """The same place from wherever it is read; `hf://` names stay what they are."""
    return place if isinstance(place, str) else os.path.abspath(place)


def is_source(name: str) -> bool:
    """Whether a name is one of rows: a file by its ending, a saved folder, `hf://`, a function."""
    path = Path(os.path.expanduser(name))
    return name.startswith(HUB) or is_function(name) or ending(path) in KNOWN or is_saved(path)


def is_rows(name: str) -> bool:
    """Whether a name is one of rows by `is_source`, or that of a file that is no YAML.

    >>> is_rows("reviews.csv"), is_rows("stream.yaml")
    (True, False)
    """
    path = Path(os.path.expanduser(name))
    return is_source(name) or (path.is_file() and path.suffix.lower() not in YAML)


def title(source: Source) -> str:
    """What a task is called whose examples are in this source, if it has no name.

    What no task's name may have is left out, as in copies that a browser makes of a file.

    >>> title(Path("mail/tickets.csv.gz")), title("hf://owner/name:en@main#train")
    ('tickets', 'name')
    >>> title(Path("tickets (1).csv"))
    'tickets 1'
    """
    if isinstance(source, InMemory):
        name = source.title.rpartition(":")[2]
    elif isinstance(source, str):
        name = re.split("[:@#]", source.removeprefix(HUB))[0].rpartition("/")[2]
    else:
        name = (source.with_suffix("") if source.suffix.lower() in SUFFIXES else source).stem
    return re.sub(r"\s*[^\w .+-]+\s*", " ", name).lstrip(" .+-").rstrip()


def ending(path: Path) -> str:
    """The ending of a file's name in lower case, that of its compression left out."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in SUFFIXES:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def read_rows(
    source: Source,
    split: str,
    report: Report,
    encoding: str | None = None,
    columns: Mapping[str, str] | None = None,
    texts: bool = False,
) -> Rows:
    """The rows of a file, a saved folder or an `hf://` name, or those in memory.

    `split` ("train", "test", "dev") chooses where a data set has several. Malformed rows go to
    `report`. `columns` are the names that a header may have beside the obvious ones. With `texts`
    no answers are needed, and a text that is nothing else holds one text a line, as standard input
    does. Raises NloraError when the source cannot be read, or is none of these.
    """
    if isinstance(source, InMemory):
        return read_memory(source, split, not texts)
    if isinstance(source, str) or (source.is_dir() and is_saved(source)):
        return read_saved(source, split, not texts)
    if source.is_dir():
        raise NloraError(
            f"{source} is a folder, and none that save_to_disk of datasets has written"
        )
    data = unpacked(read_bytes(source), source)
    if data.startswith(b"PAR1"):
        return read_parquet(source, data)
    if data.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return read_arrow(source, data)
    for magic, what in _NOT_READ:
        if data.startswith(magic):
            raise NloraError(f"{source}: {what}")
    text = decoded(data, source, encoding)
    if "\n" not in text:  # lines may end as on old Macs
        text = text.replace("\r", "\n")
    if texts and (source == STDIN or ending(source) == ".txt"):
        return read_lines(source, text)
    return _read_text(source, text, columns or {}, report, texts)


def test_split(source: Source) -> str | None:
    """What a source of several splits has for testing; None if it has one alone, or nothing."""
    if isinstance(source, InMemory):
        found = source.opened() if not callable(source.value) else None
        return split_in(found, "test") if is_dataset(found) else None
    if isinstance(source, str) and "#" in source:
        return None
    saved = isinstance(source, str) or (source.is_dir() and is_saved(source))
    return split_of(source, "test") if saved else None


def _read_text(
    path: Path, text: str, columns: Mapping[str, str], report: Report, texts: bool
) -> Rows:
    suffix = ending(path)
    match _kind_of_json(text, suffix):
        case "lines":
            return read_jsonl(path, text, report)
        case "array":
            return read_array(path, text)
        case "object":
            return read_object(path, text)
    delimiter = _delimiter(text, suffix, columns)
    if delimiter is None and suffix in _JSONL:
        return read_jsonl(path, text, report)
    if delimiter is None and suffix == ".json":
        return read_array(path, text)
    if delimiter is None and suffix not in _TABLES:
        if texts and not suffix:
            return read_lines(path, text)
        raise NloraError(
            f"{path}: neither JSON nor Parquet nor Arrow, nor a table whose first row names its "
            "columns (text and label) with commas, tabs, semicolons or bars between"
        )
    if delimiter == "\t":
        return read_tabs(path, text, report)
    return read_delimited(path, text, delimiter or ",", report)


def _kind_of_json(text: str, suffix: str) -> str | None:
    """Whether a text is JSON "lines", one "array" or one "object", by its first line; else None."""
    first, _, rest = text.lstrip().partition("\n")
    first = first.strip()
    if not first.startswith(("{", "[")):
        return None
    one = "object" if first[0] == "{" else "array"
    if first in ("{", "["):
        return one  # printed over several lines
    whole = _is_json(first)
    if whole and rest.strip():
        return "lines"
    if suffix in _JSONL or (whole and one == "object" and suffix != ".json"):
        return "array" if whole and one == "array" else "lines"
    return one if whole or suffix == ".json" or first.startswith(("[{", '{"')) else None


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _delimiter(text: str, suffix: str, columns: Mapping[str, str]) -> str | None:
    """What stands between the cells of a table; None if its header says nothing to us.

    Commas come first, so that what is in a header does not change how a file of commas is read.
    """
    order = "\t,;|" if suffix in (".tsv", ".tab") else ",\t;|"
    heads = {delimiter: _head(text, delimiter) for delimiter in order}
    for wanted in ((True, True), (True, False), (False, True)):
        for delimiter, rows in heads.items():
            if rows and obvious(rows[0], columns) == wanted:
                return delimiter
    if suffix not in _TABLES:
        return None
    even = [d for d, rows in heads.items() if len({len(row) for row in rows if row}) == 1]
    return max(even or order, key=lambda d: len(heads[d][0]) if heads[d] else 0)


def _head(text: str, delimiter: str) -> list[list[str]]:
    try:
        lines = io.StringIO(text[:65536], newline="")
        skips = spaced(text, delimiter)
        rows = csv.reader(lines, delimiter=delimiter, skipinitialspace=skips)
        return [[cell.strip() for cell in row] for row in islice(rows, 20)]
    except csv.Error:
        return []
