"""How a file of JSON is read: what is wrong with it is told in one line, by file and key."""

import json
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nlora.errors import NloraError

K = TypeVar("K", bound="Kind")

MOST_NESTED = 100
"""Levels of a value; what nlora writes has less than twenty."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
Size = Annotated[float, Field(ge=0, le=1e100, allow_inf_nan=False)]
"""Of what is measured: sums, means and spreads of such are numbers too."""
Measured = Annotated[float, Field(ge=-1e100, le=1e100, allow_inf_nan=False)]
"""Likewise, with a sign."""
Count = Annotated[int, Field(ge=0, le=10**15)]


class Kind(BaseModel):
    """What a kind of file holds. Its values are of that very type ("1" is no number).

    What it does not name may be there, since later versions add to their files.
    """

    model_config = ConfigDict(strict=True, extra="allow")


def check(kind: type[K], values: Any, place: object, *under: str) -> K:
    """The values as this kind. Raises NloraError with the place and the first key that is wrong.

    `under` are the keys of the file below which the values are.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in (*under, *first["loc"]))
        said = "is missing" if first["type"] == "missing" else first["msg"]
        said = said.removeprefix("Value error, ")  # one of our own
        raise NloraError(f"{place}: '{key}': {said}" if key else f"{place}: {said}") from error


def parsed(text: str, place: object) -> dict[str, Any]:
    """The JSON object in a text. Raises NloraError that begins with the place."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits
        raise NloraError(f"{place} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise NloraError(f"{place} must hold a JSON object")
    if _levels(value) > MOST_NESTED:
        raise NloraError(f"{place} is nested more than {MOST_NESTED} levels deep")
    return value


def _levels(value: Any) -> int:
    """How deep a value is nested, at most one more than `MOST_NESTED`."""
    inside, depth = [value], 0
    while inside and depth <= MOST_NESTED:
        lists = [one.values() if isinstance(one, dict) else one for one in inside]
        inside = [item for items in lists for item in items if isinstance(item, dict | list)]
        depth += 1
    return depth


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises NloraError."""
    return parsed(read_text(path), path)


def whole(kind: type[K], path: Path) -> K | None:
    """What a file of a cache holds; None where it is not there, or not a whole one of this kind."""
    try:
        return check(kind, read_json(path), path)
    except (OSError, NloraError):
        return None


def read_text(path: Path) -> str:
    """The text of a file. Raises NloraError."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NloraError(f"{path} does not exist") from error
    except UnicodeDecodeError as error:
        raise NloraError(f"{path} is not UTF-8: {error}") from error
