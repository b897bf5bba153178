"""How long runs take on this machine: a short run measured, and scaled up."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from nlora.backbones.catalog import check_hub
from nlora.data.task import TaskData
from nlora.errors import NloraError
from nlora.plan.budgets import value_at
from nlora.plan.resolve import Plan, trained
from nlora.progress import Progress, duration
from nlora.report.runs import untrained
from nlora.study.grid import Grid
from nlora.study.runner import Runner
from nlora.study.worker import Job

PROBED = 64
"""Training and test examples of the short run."""


class Work(NamedTuple):
    """What a run does: training examples gone through, and tests answered."""

    trained: int
    tested: int


def work(plan: Plan) -> Work:
    """What a run with this plan does."""
    stages = plan.stages()
    epochs = plan.run.epochs
    examples = sum(
        value_at(epochs, stage.index) * sum(len(data.train) for data in stage.tasks)
        for stage in stages
    )
    tests = [_tests(stage.tasks) for stage in stages]
    after = [sum(tests[: plan.stages_tested(stage.index, len(stages))]) for stage in stages]
    always = _tests(plan.only_tested) * len(stages)
    return Work(examples, _tests(plan.tested_first) + sum(after) + always)


def _tests(tasks: Sequence[TaskData]) -> int:
    return sum(len(data.test) for data in tasks)


def seconds_of(plans: Sequence[Plan], grid: Grid, workers: int, progress: Progress) -> float:
    """How long runs with these plans take, by a short run of a method of the grid.

    It is `inc-lora` or `n-lora` where the grid has one, else one that trains, if any does. What
    methods do beside is not counted (EWC's Fisher information, LFPT5's pseudo-samples), nor what
    runs share. Raises NloraError if there is no such model, or where the short
    run fails.
    """
    if not plans:
        return 0.0
    check_hub(grid.base)
    training, testing = _rates(grid, workers, progress)
    works = [work(plan) for plan in plans]
    each = [training * trained + testing * tested for trained, tested in works]
    return max(sum(each) / workers, *each)  # the longest is not shared out


def in_words(runs: int, seconds: float) -> str:
    """What is left, and how long it takes.

    >>> in_words(3, 700)
    '3 runs, about 12 min by a short one of 64 examples'
    """
    what = "1 run" if runs == 1 else f"{runs} runs"
    return f"{what}, about {duration(seconds)} by a short one of {PROBED} examples"


def _rates(grid: Grid, workers: int, progress: Progress) -> tuple[float, float]:
    """Seconds for a training example, and for a test, as one of the runs at a time has it."""
    training = [p for p in grid.points if not untrained(p.label)] or grid.points
    [point, *_] = [p for p in training if p.method in ("inc-lora", "n-lora")] or training
    settings = {**grid.common, "epochs": 1}
    tests = min(grid.max_eval or PROBED, PROBED)
    small = replace(grid, points=(point,), max_train=PROBED, max_eval=tests, settings=settings)
    cell = small.cell(grid.streams[0], point, grid.seeds[0])
    first = cell.plan.with_stream(trained(cell.plan.stream)[:1])
    rows = []
    with TemporaryDirectory() as place:
        runner = Runner(Path(place), workers, progress, None, lambda job, row: rows.append(row))
        runner.run([Job("probe", cell.key, first)])
    [row] = rows
    if "error" in row:
        raise NloraError(str(row["error"]))
    spent, did = row["seconds_by"], work(first)
    return spent["training"] / max(did.trained, 1), spent["evaluation"] / did.tested
