"""Whether a command that commits stages has anything to go on after, when it is stopped."""

from collections.abc import Iterable
from pathlib import Path

_STAGES = ("stages/[0-9]*", "*/stages/[0-9]*", "*/*/*/stages/[0-9]*", "ledger.jsonl")
"""Stages of a model directory, of those below a demo's and a comparison's folder, and its rows."""

_BEGUN = (
    *("checkpoints/*/step-*", "*/checkpoints/*/step-*", "*/*/*/checkpoints/*/step-*"),
    "tuning.jsonl",
)
"""What is gone on from, too: checkpoints of a first stage there, and trials of tuning."""

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
    return _places is not None and not _found(_STAGES)


def is_begun() -> bool:
    """Whether there is something to go on from all the same."""
    return _found(_BEGUN)


def _found(patterns: Iterable[str]) -> bool:
    """Whether there is anything of the kind in any of the places."""
    places = _places or ()
    return any(True for place in places for pattern in patterns for _ in place.glob(pattern))
