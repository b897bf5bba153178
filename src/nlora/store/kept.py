"""Values that took time and can be had again, kept in a JSON file with what they were made of."""

from pathlib import Path
from typing import Any

from nlora.data.task import digest
from nlora.store.atomic import write_json
from nlora.store.reading import Kind, whole


class _Kept(Kind):
    made_of: str
    values: Any
    hash: str


def kept(place: Path, made_of: str) -> Any:
    """The values of a file, or None where there is none, it was made of something else or it is
    not as it was written."""
    found = whole(_Kept, place)
    if found is None or found.made_of != made_of or found.hash != digest(found.values):
        return None
    return found.values


def keep(place: Path, made_of: str, values: Any) -> None:
    """Write values that JSON can hold to their file, whose folder may not be there yet."""
    place.parent.mkdir(parents=True, exist_ok=True)
    write_json(place, {"made_of": made_of, "values": values, "hash": digest(values)})
