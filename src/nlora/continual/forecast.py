"""What the guard of the next stage would measure, and how long that takes."""

from collections.abc import Sequence

from nlora.continual.guard import FEWEST, Guard
from nlora.continual.repair import STEPS
from nlora.continual.tasks import as_tasks
from nlora.data.task import TaskData
from nlora.progress import duration
from nlora.store.directory import ModelDirectory

TRIES = STEPS + 5
"""Evaluations that repairing a stage takes at most: scaled back, by thirds, answers matched."""


def forecast(directory: ModelDirectory, stream: Sequence[TaskData], guard: Guard) -> list[str]:
    """What to tell beforehand of a stage; `stream` is what its plan has, the new task too.

    Times are those of the last stage by test, and unknown before there is one.
    """
    names = ", ".join(dict.fromkeys(data.name for data in stream if not data.train))
    if not names:
        return ["the guard would compare nothing: no task is known or watched yet"]
    asked = sum(len(data.test) for data in as_tasks(stream))
    each = _seconds_of_a_test(directory)
    takes = (
        "" if each is None else f" (about {duration(each * asked)}, as fast as the last stage's)"
    )
    lines = [
        f"after training {asked} tests are answered{takes}; those of {names} are compared with the "
        f"answers before, and the stage stands if none loses more than {guard.bound:g} points"
    ]
    if guard.repair != "off":
        most = "" if each is None else f" (about {duration(TRIES * each * asked)})"
        lines.append(f"if one does, repairing it takes up to {TRIES} times as many{most}")
    few = [
        f"{data.name} ({len(data.test)} tests) by less than {100 * FEWEST / len(data.test):.1f}"
        if len(data.test) >= FEWEST
        else f"{data.name} ({len(data.test)} tests) by any"
        for data in as_tasks([data for data in stream if not data.train])
        if data.test and 100 * FEWEST / len(data.test) > guard.bound
    ]
    if few and guard.bound < 100:
        lines.append(
            f"a fall counts from {FEWEST} answers that became worse, so these may fall unrefused: "
            f"{', '.join(few)} points; more test rows would tell"
        )
    return lines


def _seconds_of_a_test(directory: ModelDirectory) -> float | None:
    records = directory.stages()
    if not records or not sum(records[-1].tested.values()):
        return None
    return records[-1].seconds.get("evaluation", 0.0) / sum(records[-1].tested.values())
