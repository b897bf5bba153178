"""Tuning: the same number of trials for every method, chosen on dev and with a seed of its own.

Varied are the learning rate and the method's own weight (`Method.own_weight`), in steps of half a
decade around what the method has without tuning, which is the first trial. With N = 9 that is the
3 × 3 grid around it, or nine learning rates for a method that has no weight of its own.
"""

from collections.abc import Sequence
from itertools import islice, product
from typing import Any

from pydantic import model_validator

from nlora.errors import NloraError
from nlora.plan.resolve import Plan
from nlora.store.reading import Kind, Measured

SEED = 1000
"""Of the trials; no run of the grid may have it."""

STEP = 10**0.5


class Trial(Kind):
    """A line of `tuning.jsonl`."""

    stream: str
    method: str
    trial: int
    settings: dict[str, Any]
    average_accuracy: Measured | None = None
    error: str | None = None

    @model_validator(mode="after")
    def _finished(self) -> "Trial":
        if self.error is None and self.average_accuracy is None:
            raise ValueError("needs 'average_accuracy' or 'error'")
        return self


def trials(plan: Plan, count: int) -> list[dict[str, Any]]:
    """The settings of each trial, those nearest to the plan's own first."""
    settings = plan.settings()
    weight = plan.method.own_weight()
    varied = ["learning_rate"]
    if weight is not None and settings[weight] not in (0, "auto"):
        varied.append(weight)
    steps = range(-count, count + 1)
    points = sorted(
        product(steps, repeat=len(varied)),
        key=lambda point: (max(map(abs, point)), sum(map(abs, point)), point),
    )
    return [
        {name: _scaled(settings[name], step) for name, step in zip(varied, point, strict=True)}
        for point in islice(points, count)
    ]


def _scaled(value: float | list[float], step: int) -> float | list[float]:
    """So many half decades up or down, to two digits."""
    if isinstance(value, list):
        return [float(_scaled(v, step)) for v in value]  # type: ignore[arg-type]
    return float(f"{value * STEP**step:.2g}") if step else value


def choose(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The settings of the trial with the highest average accuracy on dev; of equals the first.

    `rows` are a method's trials on a stream, in order. Raises NloraError if none was finished.
    """
    finished = [row for row in rows if "error" not in row]
    if not finished:
        raise NloraError(f"none of its {len(rows)} tuning trials was finished: {rows[0]['error']}")
    return max(finished, key=lambda row: row["average_accuracy"])["settings"]
