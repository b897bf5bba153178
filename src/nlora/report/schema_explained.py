"""What `explained` in a row of a ledger must hold before tables believe it."""

from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from nlora.store.reading import Count, Kind, Measured

_OR_NONE = BeforeValidator(lambda value: None if value == {} else value)
"""Where there were no such tasks, it is empty."""

Readings = dict[str, Measured | None]


class Estimate(Kind):
    """A number with its interval; None where it is of nothing."""

    value: Measured | None
    low: Measured | None = None
    high: Measured | None = None


Kept = dict[str, dict[str, Estimate]]
"""What is left, by where the way begins, and by the source of offsets."""


class Reading(Kind):
    """Right answers in per cent at one moment."""

    free: Measured | None
    among: Measured | None
    matched: Readings


class Moved(Kind):
    """How far a later stage moved the states that a task's answers begin from, and the cosine of
    its gradient and the task's."""

    stage: Count
    cosine: Measured | None = None
    cka: Measured | None = None
    gradients: Measured | None = None


class Task(Kind):
    """A task with labels; what was lost of the last one, nothing is said of."""

    never: Reading | None = None
    then: Reading
    now: Reading | None = None
    way: dict[str, Estimate]
    parts: Readings = Field(default_factory=dict)
    kept: Kept = Field(default_factory=dict)
    moved: list[Moved] = Field(default_factory=list)

    @model_validator(mode="after")
    def _way_from_base(self) -> "Task":
        if "base" not in self.way:
            raise ValueError("'way' should begin at 'base'")
        return self


class OverTasks(Kind):
    """The tasks before the last together."""

    now: Annotated[Reading | None, _OR_NONE] = None
    parts: Readings
    kept: Kept = Field(default_factory=dict)


class Explained(Kind):
    """What `nlora explain` found of a run, as a row of a ledger keeps it."""

    texts: Count | None = None
    probe: Count | None = None
    shift: Count | None = None
    gradients: Count | None = None
    kinds: list[str] = Field(default_factory=list)
    tasks: dict[str, Task] = Field(default_factory=dict)
    over_tasks: Annotated[OverTasks | None, _OR_NONE] = None
    all_tasks: Annotated[Reading | None, _OR_NONE] = None
