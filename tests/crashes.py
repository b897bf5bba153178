"""Each point of something that writes, with each fault; and whether what must hold does."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.faults import FAULTS, KILLED, Outcome, Point, attempt, leftovers, visible

State = dict[str, bytes]


class Crash(NamedTuple):
    """What a fault at a point did."""

    point: Point
    fault: str
    left: str
    """`before`, `between` (of the steps of a command) or `after`: what a reader sees then."""
    error: str | None
    wrong: list[str]
    """What should have held and does not."""
    at: int
    """The number of the point, of as many as there are."""
    of: int


@dataclass(frozen=True)
class Way:
    """How crashes are made."""

    faults: Sequence[str] = tuple(FAULTS)
    forked: bool = False
    """Each attempt in a process of its own, not only one that is killed."""
    syncs: bool = False
    """Sync in earnest."""
    points: int | None = None
    """At most so many points, spread over all; None is all of them."""
    one_error: bool = False
    """At each point a kill and one of the other faults in turn, instead of every fault."""
    others_go_on: bool = False
    """A part that fails does not keep the others from being done, as no undisturbed run does it."""


def crashes(
    act: Callable[[Path], object],
    before: Path,
    scratch: Path,
    seen: Callable[[Path], State] = visible,
    way: Way | None = None,
) -> Iterator[Crash]:
    """Do something to copies of the folder `before`, each time with another fault.

    `seen` is what must be equal in the end. States in between are those that a kill at one of the
    points leaves.
    """
    way = way or Way()

    def tried(at: int | None = None, fault: str = KILLED) -> Outcome:
        return attempt(lambda: act(copy), copy, at, fault, way.forked, way.syncs)

    copy = _copy(before, scratch / "copy")
    undisturbed = tried()
    assert undisturbed.error is None, undisturbed.error
    points = undisturbed.points
    first, last = seen(before), seen(copy)
    between: list[State] = []
    for at in _spread(len(points), way.points):
        for fault in sorted(_faults(way, at), key=lambda name: name != KILLED):
            _copy(before, copy)
            outcome = tried(at, fault)
            found = seen(copy)
            if fault == KILLED and found not in between:
                between.append(found)
            left = "before" if found == first else "after" if found == last else "between"
            place = points[at - 1].path.rpartition("/")[2].partition("-PID")[0].lstrip(".")
            wrong = list(_wrong(outcome, fault, copy, (str(copy), place or str(copy))))
            if left == "between" and found not in between and not way.others_go_on:
                wrong.append("a state that no undisturbed run passes")
            again = tried()
            if again.error is not None:
                wrong.append(f"the same again fails: {again.error}")
            elif differing := _differing(seen(copy), last):
                wrong.append(f"the same again ends otherwise: {', '.join(differing)}")
            elif remaining := leftovers(copy):
                wrong.append(f"stays behind: {', '.join(remaining)}")
            yield Crash(points[at - 1], fault, left, outcome.error, wrong, at, len(points))


def _spread(count: int, most: int | None) -> list[int]:
    """Numbers from 1 to `count`, at most so many, at equal distances."""
    if most is None or most >= count:
        return list(range(1, count + 1))
    return sorted({1 + round(k * (count - 1) / (most - 1)) for k in range(most)})


def _faults(way: Way, at: int) -> list[str]:
    """The faults of the `at`-th point."""
    if not way.one_error:
        return list(way.faults)
    errors = [fault for fault in way.faults if fault != KILLED]
    return [KILLED, errors[at % len(errors)]]


def _differing(one: State, other: State) -> list[str]:
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def _wrong(outcome: Outcome, fault: str, root: Path, names: Sequence[str]) -> Iterator[str]:
    """What does not hold; an error must have one of the names."""
    error = outcome.error
    if fault == KILLED:
        if outcome.status != -9:
            yield f"status {outcome.status} of a killed process"
        return
    if error is None:
        return
    if "\n" in error:
        yield f"a traceback: {error.splitlines()[-1]}"
    elif not any(name in error for name in names):
        yield f"no path in: {error}"
    if left := leftovers(root):
        yield f"left behind: {', '.join(left)}"


def _copy(source: Path, place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    return Path(shutil.copytree(source, place))
