"""Whether a command that commits stages has anything to go on after, when it is stopped."""

from pathlib import Path

_STAGES = ("stages/[0-9]*", "*/stages/[0-9]*", "*/*/*/stages/[0-9]*", "ledger.jsonl")
"""Stages of a model directory, of those below a demo's and a comparison's folder, and its rows."""

_places: list[Path] | None = None


def commits_in(*places: Path | None) -> None:
    """Say where the command that runs commits stages."""
    global _places
    _places = [place for place in places if place is not None]


def forget() -> None:
    """Begin a command, of which nobody knows where it commits anything."""
    global _places
    _places = None


def nothing_stands() -> bool:
    """Whether it is known that nothing is committed."""
    return _places is not None and not any(_found(place) for place in _places)


def _found(place: Path) -> bool:
    return any(True for pattern in _STAGES for _ in place.glob(pattern))
