"""The accuracy matrix and the numbers that are computed from it.

Row k of the matrix is measured after stage k, column t is task t (per cent, None where not
measured); rows after that of the last task are later tests. The paper writes a_{t,k} for entry
(k, t) in Section 4.1; its Eq. 6 swaps the indices.
"""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

Columns = Sequence[tuple[str, int]]
"""Of each column its task and how many tests it has. Columns of one task, of which each has the
tests that one stage brought, count as one, in proportion to their tests; without `Columns` each is
a task."""


class FewMeasured:
    """A row of so many columns, given by those that were measured.

    The matrix of a long stream that is tested in part is no larger than what is in it.
    """

    def __init__(self, measured: Mapping[int, float | None], columns: int) -> None:
        self.measured = measured
        self._columns = columns

    def __len__(self) -> int:
        return self._columns

    def __getitem__(self, column: int) -> float | None:
        return self.measured.get(range(self._columns)[column])

    def __iter__(self) -> Iterator[float | None]:
        return map(self.measured.get, range(self._columns))


Row = Sequence[float | None] | FewMeasured


def _measured(row: Row) -> Iterator[tuple[int, float | None]]:
    """Columns and what stands there, without those that a row does not have."""
    yield from row.measured.items() if isinstance(row, FewMeasured) else enumerate(row)


def average_accuracy(matrix: Sequence[Row]) -> float | None:
    """Unweighted mean over the tasks after the last stage (Eq. 5)."""
    return _mean(matrix[-1]) if matrix else None


def learning_accuracy(matrix: Sequence[Row], columns: Columns | None = None) -> float | None:
    """Mean of a_{t,t}: each task right after it was learned. To be read beside the average."""
    return _mean([matrix[t][t] for t in range(_tasks(matrix))], columns)


def forgetting(matrix: Sequence[Row], columns: Columns | None = None) -> float | None:
    """Mean over t < T of the best accuracy before the last stage minus the last one (Eq. 6).

    Stages k from t to T−1 count; None with one task.
    """
    last = len(matrix) - 1
    best: dict[int, float] = {}
    for k, row in enumerate(matrix[:last]):
        for t, a in _measured(row):
            if t <= k and a is not None:
                best[t] = max(a, best.get(t, a))
    tasks = range(min(last, _tasks(matrix)))
    drops = [_minus(best.get(t), matrix[last][t]) for t in tasks]
    return _mean(drops, columns and columns[: len(drops)])


def backward_transfer(matrix: Sequence[Row], columns: Columns | None = None) -> float | None:
    """Mean over t < T of a_{T,t} − a_{t,t}; None with one task."""
    tasks = range(min(len(matrix) - 1, _tasks(matrix)))
    changes = [_minus(matrix[-1][t], matrix[t][t]) for t in tasks]
    return _mean(changes, columns and columns[: len(changes)])


def forward_transfer(
    matrix: Sequence[Row], zero_shot: Row | None, columns: Columns | None = None
) -> float | None:
    """Mean over t ≥ 2 of a_{t−1,t} − zero-shot accuracy on t; None where not measured."""
    if zero_shot is None:
        return None
    gains = [_minus(matrix[t - 1][t], zero_shot[t]) for t in range(1, _tasks(matrix))]
    return _mean(gains, columns and columns[1:])


def summary(
    matrix: Sequence[Row], zero_shot: Row | None, columns: Columns | None = None
) -> dict[str, float | None]:
    """All five numbers of a stream that was learned task by task, by name."""
    return {
        "average_accuracy": average_accuracy(matrix),
        "learning_accuracy": learning_accuracy(matrix, columns),
        "forgetting": forgetting(matrix, columns),
        "backward_transfer": backward_transfer(matrix, columns),
        "forward_transfer": forward_transfer(matrix, zero_shot, columns),
    }


def _tasks(matrix: Sequence[Row]) -> int:
    """How many tasks there are: a row for each, and more where they were tested again."""
    return len(matrix[0]) if matrix else 0


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _mean(values: Row, columns: Columns | None = None) -> float | None:
    """The mean, or None if a value is missing: a mean over fewer tasks would be another number."""
    numbers = [v for v in values if v is not None]
    if not numbers or len(numbers) < len(values):
        return None
    tasks: dict[Any, list[tuple[float, int]]] = {}
    for place, number in enumerate(numbers):
        task, count = (place, 1) if columns is None else columns[place]
        tasks.setdefault(task, []).append((number, count))
    return fmean(fmean([n for n, _ in t], [count for _, count in t]) for t in tasks.values())
