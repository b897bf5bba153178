"""The ledger: a JSON line per finished run, with all that is needed to repeat and to compare it.

A row (`study.rows` makes it) holds no path, so that it means the same on any machine. Tables are
made from ledgers alone: which test examples were answered right stands in a row too.
"""

import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nlora.errors import NloraError
from nlora.plan.config import with_todays_names
from nlora.report.schema import check_row
from nlora.store.atomic import append_line, write_text
from nlora.store.locks import PATIENCE, held
from nlora.store.reading import Kind, check, parsed, read_text


def pack(right: Sequence[bool]) -> str:
    """Right and wrong answers as text: how many, and their bits in hex.

    >>> pack([True, False, True])
    '3:a0'
    """
    return f"{len(right)}:{np.packbits(np.array(right, dtype=bool)).tobytes().hex()}"


def unpack(text: str) -> np.ndarray:
    """What `pack` wrote, (n,) of 0 and 1.

    >>> unpack("3:a0").tolist()
    [1, 0, 1]
    """
    count, bits = text.split(":")
    return np.unpackbits(np.frombuffer(bytes.fromhex(bits), dtype=np.uint8), count=int(count))


def rounded(value: Any, digits: int = 6) -> Any:
    """The same JSON with so many significant digits; what is not finite becomes None.

    >>> rounded({"a": [1.23456, float("nan"), 2]}, 3)
    {'a': [1.23, None, 2]}
    """
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: rounded(item, digits) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item, digits) for item in value]
    return value


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a ledger of runs, those of earlier versions of nlora under today's names.

    Raises NloraError, with the line, for what is none.
    """
    if (path / "ledger.jsonl").is_file():
        raise NloraError(f"{path} is a folder; give its ledger, {path / 'ledger.jsonl'}")
    if (path / "model.json").is_file():
        raise NloraError(
            f"{path} is a model directory and no ledger; "
            f"`nlora study row {path} > ledger.jsonl` makes one of it"
        )
    if path.is_dir():
        raise NloraError(f"{path} is a folder without ledger.jsonl, which `nlora compare` writes")
    if not path.is_file():
        raise NloraError(f"{path} does not exist; `nlora compare` writes OUT/ledger.jsonl")
    return list(rows(path))


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file that is there, as `read` has them."""
    for number, row in _numbered(path):
        place = f"{path}, line {number}"
        if not row.keys() >= {"configuration", "base"}:
            raise NloraError(f"{place}: not a row of a ledger of runs")
        renamed = _with_todays_names(row)
        check_row(renamed, place)
        yield renamed


def _with_todays_names(row: dict[str, Any]) -> dict[str, Any]:
    """The row, whose types nobody has checked, under today's names."""
    found = {"needs": {}, **row}
    if isinstance(found["needs"], dict):
        found["needs"] = with_todays_names(found["needs"])
    configuration = found["configuration"]
    if isinstance(configuration, dict) and isinstance(configuration.get("settings"), dict):
        settings = with_todays_names(configuration["settings"])
        found["configuration"] = {**configuration, "settings": settings}
    return found


def lines(path: Path, kind: type[Kind] = Kind) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file of this kind. Raises NloraError, with line and key, if not.

    A row counts once its line has an end: half a row at the end of the file is being written, or
    was when its process was killed, and is left out.
    """
    for number, row in _numbered(path):
        check(kind, row, f"{path}, line {number}")
        yield row


def _numbered(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    *ended, last = read_text(path).split("\n")
    for number, line in enumerate([*ended, last], start=1):
        if not line.strip():
            continue
        try:
            yield number, parsed(line, f"{path}, line {number}")
        except NloraError:
            if number > len(ended):
                return
            raise


def write(path: Path, new: dict[str, Any], same: Sequence[str] = ("cell",)) -> None:
    """Add a row, in place of one with the same values of the keys `same` (a cell that failed).

    A reader sees the old rows or the new ones, whatever happens. Several processes may add rows to
    one file: each waits for its turn.
    """
    with held(path, PATIENCE):
        old = list(lines(path)) if path.exists() else []
        kept = [row for row in old if _key(row, same) != _key(new, same)]
        if len(kept) == len(old) and _has_whole_lines(path):
            append_line(path, _line(new))
        else:
            write_text(path, "".join(_line(row) + "\n" for row in [*kept, new]))


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False)


def _has_whole_lines(path: Path) -> bool:
    """Whether a file is there, and its last line has an end."""
    if not path.exists() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def _key(row: dict[str, Any], same: Sequence[str]) -> list[Any]:
    return [row.get(name) for name in same]
