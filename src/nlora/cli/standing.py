"""What a command that commits stages leaves behind when it is stopped."""

from pathlib import Path

STANDS = "; committed stages stand, the same command goes on after the last one"
KEPT = "; what was measured is kept, the same command goes on after it"
NOTHING = "; nothing is committed yet, the same command begins anew"

_STAGES = ("stages/[0-9]*", "*/stages/[0-9]*", "*/*/*/stages/[0-9]*", "ledger.jsonl")
"""Stages of a model directory, of those below a demo's and a comparison's folder, and its rows."""

_places: list[Path] = []
_measures: list[bool] = []


def commits_in(place: Path) -> None:
    """Say that the command which runs commits stages in a folder."""
    _places.append(place)


def keeps_measured() -> None:
    """Say that the command which runs keeps what it measures, and commits nothing."""
    _measures.append(True)


def forget() -> None:
    """Begin a command, which commits nothing until it says so."""
    _places.clear()
    _measures.clear()


def what_stands() -> str:
    """What to add to the word that a command was stopped."""
    if not _places:
        return KEPT if _measures else ""
    return STANDS if any(_found(place) for place in _places) else NOTHING


def _found(place: Path) -> bool:
    return any(True for pattern in _STAGES for _ in place.glob(pattern))
