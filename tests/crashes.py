"""Each point of something that writes, with each fault; and whether what must hold does."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.faults import FAULTS, KILLED, Point, attempt, leftovers, visible

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


def crashes(
    act: Callable[[Path], object],
    before: Path,
    scratch: Path,
    seen: Callable[[Path], State] = visible,
    faults: Sequence[str] = tuple(FAULTS),
    forked: bool = False,
) -> Iterator[Crash]:
    """Do something to copies of the folder `before`, each time with another fault.

    `seen` is what must be equal in the end. States in between are those that were there after some
    call of an undisturbed run, which a kill at each point shows.
    """
    whole = _copy(before, scratch / "whole")
    points = attempt(lambda: act(whole), whole, forked=forked).points
    first, last = seen(before), seen(whole)
    between: list[State] = []
    for at, point in enumerate(points, start=1):
        for fault in sorted(faults, key=lambda name: name != KILLED):
            copy = _copy(before, scratch / "copy")
            outcome = attempt(lambda copy=copy: act(copy), copy, at, fault, forked)
            found = seen(copy)
            if fault == KILLED and found not in between:
                between.append(found)
            left = "before" if found == first else "after" if found == last else "between"
            wrong = list(_wrong(outcome.status, outcome.error, fault, copy))
            if left == "between" and found not in between:
                wrong.append("a state that no undisturbed run passes")
            again = attempt(lambda copy=copy: act(copy), copy, forked=forked)
            if again.error is not None:
                wrong.append(f"the same again fails: {again.error}")
            elif seen(copy) != last:
                wrong.append("the same again ends otherwise")
            yield Crash(point, fault, left, outcome.error, wrong)


def _wrong(status: int, error: str | None, fault: str, root: Path) -> Iterator[str]:
    if fault == KILLED:
        if status != -9:
            yield f"status {status} of a killed process"
        return
    if error is None:
        return
    if "\n" in error:
        yield f"a traceback: {error.splitlines()[-1]}"
    elif str(root) not in error:
        yield f"no path in: {error}"
    if left := leftovers(root):
        yield f"left behind: {', '.join(left)}"


def _copy(source: Path, place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    return Path(shutil.copytree(source, place))
