"""What a method needs and costs beside what it reaches, and which nothing is better than."""

from collections.abc import Sequence
from typing import NamedTuple

from nlora.report.accuracy import over_streams
from nlora.report.footnotes import legend, marked, needs
from nlora.report.runs import Run, Section
from nlora.report.table import Cell, Table, Value

NEEDS = {"old_data": "old data", "task_identity": "task identity", "storage": "storage per task"}

ALIKE = 1.1
"""How many times longer a training is whose time counts as the same."""


class Point(NamedTuple):
    """A method's place."""

    label: str
    average: Value
    """Accuracy in per cent."""
    minutes: Value
    """Of training, per run."""
    needs: tuple[bool, ...]
    """By `NEEDS`."""

    def beaten_by(self, other: "Point") -> bool:
        """Whether another is as accurate, needs no more and trains as fast, and better in one.

        Times that differ by less than a tenth count as one.
        """
        mine, theirs = (-self.average.mean, *self.needs), (-other.average.mean, *other.needs)
        slower = other.minutes.mean > ALIKE * self.minutes.mean
        faster = self.minutes.mean > ALIKE * other.minutes.mean
        as_good = not slower and all(a <= b for a, b in zip(theirs, mine, strict=True))
        return as_good and (faster or theirs != mine)


def points(section: Section) -> tuple[list[str], list[Point]]:
    """The streams that all methods have, else the first, and the place of each method there.

    The most accurate first.
    """
    trained = [label for label in section.methods if section.of(label)]
    streams = [s for s in section.streams if all(section.of(label, s) for label in trained)]
    streams = streams or section.streams[:1]
    found = []
    for label in trained:
        average = over_streams(section, label, streams, lambda run: run.row["average_accuracy"])
        minutes = over_streams(section, label, streams, _minutes, ".2f")
        if average is not None and minutes is not None:
            needed = needs(section, label)
            found.append(Point(label, average, minutes, tuple(bool(needed.get(n)) for n in NEEDS)))
    return streams, sorted(found, key=lambda point: -point.average.mean)


def front(found: Sequence[Point]) -> list[Point]:
    """Those than which none is better."""
    return [p for p in found if not any(p.beaten_by(other) for other in found)]


def pareto(section: Section) -> Table | None:
    """A row per method, the most accurate first; None where no run tells how long it took."""
    streams, found = points(section)
    if not found:
        return None
    best, rows = front(found), list[list[Cell]]()
    for point in found:
        lost = over_streams(section, point.label, streams, lambda run: run.row.get("forgetting"))
        passes = needs(section, point.label).get("passes")
        rows.append(
            [
                marked(section, point.label),
                point.average,
                lost,
                *("yes" if needed else "" for needed in point.needs),
                None if passes is None else Value(passes, form=".3g"),
                point.minutes,
                "yes" if point in best else "",
            ]
        )
    columns = ["method", "average", "forgetting", *NEEDS.values(), "extra passes"]
    columns += ["training (min)", "front"]
    notes = [
        f"over {', '.join(streams)}; ± standard deviation over seeds; extra passes: over a stage's "
        "examples, beside training's",
        "front: no other method is as accurate, needs no more and trains no longer (a tenth is no "
        "difference); minutes are those of the machine and of what ran beside",
        *legend(section, [point.label for point in found]),
    ]
    return Table("pareto", f"Needs and cost beside accuracy. {section.title}", columns, rows, notes)


def _minutes(run: Run) -> float | None:
    seconds = run.row.get("seconds_by")
    return seconds["training"] / 60 if seconds else None
