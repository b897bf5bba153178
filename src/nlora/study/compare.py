"""A comparison: a grid of runs, each done once, with a ledger from which tables are made."""

import shutil
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from nlora import processes
from nlora.backbones.catalog import check_hub
from nlora.continual.agreement import document
from nlora.data.dev import on_dev
from nlora.errors import NloraError
from nlora.explain.summary import Wanted
from nlora.plan.points import Point
from nlora.plan.resolve import Plan, resolve
from nlora.progress import NoProgress, Progress
from nlora.report import ledger
from nlora.study import output, tune
from nlora.study.cluster import Cluster, collect
from nlora.study.grid import Cell, Grid, folder, stream_name
from nlora.study.rows import commit, configuration
from nlora.study.runner import Outcome, Runner
from nlora.study.share import Shared, shared
from nlora.study.worker import Job

Row = dict[str, Any]


def compare(
    grid: Grid,
    out: Path,
    workers: int = 1,
    progress: Progress | None = None,
    explain: Wanted | None = None,
    cluster: Cluster | None = None,
) -> list[Row]:
    """Run every cell of the grid that is not finished yet; the ledger's rows of the grid.

    With `explain` the row of each cell, of one that was finished before, too, says what was lost.
    With `cluster` cells that neither are finished nor submitted are submitted as jobs, and nothing
    is waited for: `study.cluster.status` says how far they are.

    A cell that fails is recorded with its error, does not stop the others, and is tried again the
    next time. Cells run in processes of their own, so a script that calls this needs
    `if __name__ == "__main__":`. Raises NloraError, before anything runs, for all that is wrong
    with the grid, or if the folder holds something else.
    """
    check_asked(grid, workers)
    output.check_place(out)
    comparison = Comparison(grid, out, workers, progress or NoProgress(), explain, cluster)
    comparison.check()
    with output.claimed(out, grid):
        if comparison.tune():
            comparison.run()
    return comparison.rows()


def check_asked(grid: Grid, workers: int) -> None:
    """Raise NloraError for what no comparison can be asked for."""
    if processes.count() > 1:
        raise NloraError("a comparison starts its own processes: --workers N, without torchrun")
    if workers < 1:
        raise NloraError(f"there must be at least 1 worker, not {workers}")
    if grid.tune < 0:
        raise NloraError(f"there must be at least 0 trials, not {grid.tune}")
    if grid.tune and tune.SEED in grid.seeds:
        raise NloraError(f"seed {tune.SEED} is the one that tuning uses; choose another")


class Comparison:
    """A grid and its folder: what is to be run, and what has been."""

    def __init__(
        self,
        grid: Grid,
        out: Path,
        workers: int,
        progress: Progress,
        explain: Wanted | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        self.grid = grid
        self.out = out
        self.workers = workers
        self.progress = progress
        self.explain = explain
        self.cluster = cluster
        self.commit = commit()
        self.ledger = out / output.LEDGER
        self.trials: dict[tuple[str, str], list[Row]] = {}
        """The finished trials of every stream and method."""

    @cached_property
    def notes(self) -> list[str]:
        """What reading the data has to say, each line once."""
        read = [data for tasks in self.grid.tasks.values() for data in tasks]
        return list(dict.fromkeys(note for data in read for note in data.notes))

    def check(self) -> None:
        """What is wrong with a setting or with the data should not wait for a training."""
        for note in self.notes:
            self.progress.message(note)
        cells, known = self.cells, self._known()  # resolving them says what is wrong
        if not all(self._finished(known.get(cell_of({"cell": cell.key}))) for cell in cells):
            check_hub(self.grid.base)
        if missing := self.grid.without_recipe():
            self.progress.message(f"nothing is published, defaults: {', '.join(missing)}")

    def tune(self) -> bool:
        """Run the trials that are not finished, whose models are not kept; whether all are."""
        if not self.grid.tune:
            return True
        path = self.out / output.TUNING
        self._warn_of_dev()
        jobs = [job for stream, point in self.grid.pairs() for job in self.trials_of(stream, point)]
        submitted = self._submitted()
        begun = self._begun()
        old = {
            trial_of(row)
            for row in trials(path)
            if "error" not in row
            or (row["stream"], row["method"]) in begun
            or self.cluster is not None  # whose next call is to submit the cells
        }
        self._run([job for job in jobs if trial_of(job.key) not in old], jobs, submitted)
        found = {trial_of(row): row for row in trials(path)}
        if not all(trial_of(job.key) in found for job in jobs):
            self.progress.message("when the trials are done, the same command submits the cells")
            return False
        for job in jobs:
            key = (job.key["stream"], job.key["method"])
            self.trials.setdefault(key, []).append(found[trial_of(job.key)])
        for job in jobs:  # and not those of another part of the grid, which may be running
            shutil.rmtree(self.out / job.name, ignore_errors=True)
        output.remove_empty(self.out / output.TRIALS)
        return True

    def _begun(self) -> set[tuple[Any, Any]]:
        """Streams and methods of which a cell has used the trials: none is tried again then."""
        cells = [cell for cell in self.cells if (self.out / cell.name).parent.is_dir()]
        return {(stream, method) for stream, method, _ in self._known()} | {
            (cell.stream, cell.label) for cell in cells
        }

    def run(self) -> None:
        """Run the cells that are not finished."""
        submitted = self._submitted()
        done = self._known()
        jobs = []
        for cell in self.cells:
            try:
                plan = self._tuned(cell)
            except NloraError as error:
                self._record(Job(cell.name, cell.key, cell.plan), {"error": str(error)})
                continue
            jobs.append(_job(cell.name, cell.key, plan))
        waiting = [job for job in jobs if cell_of({"cell": job.key}) not in done]
        if len(done):
            self.progress.message(f"{len(jobs) - len(waiting)} of {len(jobs)} cells are finished")
        rows = [(job, done.get(cell_of({"cell": job.key}))) for job in jobs]
        waiting += [
            replace(job, shared=Shared(), row=row)
            for job, row in rows
            if row is not None and not self._finished(row)
        ]
        self._run(waiting, jobs, submitted)

    def _known(self) -> dict[tuple[Any, ...], Row]:
        """The ledger's rows of runs that did not fail."""
        return {cell_of(row): row for row in rows_of(self.ledger) if "error" not in row}

    def _finished(self, row: Row | None) -> bool:
        """Whether a cell that has this row is run, and explained if that is asked for."""
        if row is None:
            return False
        return self.explain is None or not self.explain.missing_in(row)

    def rows(self) -> list[Row]:
        """The ledger's rows of the grid, in the grid's order."""
        found = {cell_of(row): row for row in rows_of(self.ledger)}
        keys = [cell_of({"cell": cell.key}) for cell in self.cells]
        return [found[key] for key in keys if key in found]

    @cached_property
    def cells(self) -> list[Cell]:
        """Every run of the grid, resolved."""
        return [
            self.grid.cell(stream, point, seed)
            for seed in self.grid.seeds
            for stream, point in self.grid.pairs()
        ]

    def trials_of(self, stream: str, point: Point) -> list[Job]:
        """The trials by which a method is tuned on a stream."""
        grid, name = self.grid, stream_name(stream)
        # What is only tested is in no average that a trial is chosen by.
        tasks = [on_dev(data, tune.SEED) for data in grid.tasks[name] if not data.only_tested]

        def planned(**settings: Any) -> Plan:
            config = grid.config(stream, point, tune.SEED, **settings)
            config = config.model_copy(update={"evaluate": "seen"})
            return resolve(config, tasks, grid.base)

        if not grid.cell(stream, point, tune.SEED).plan.stages():  # nothing is trained
            return []
        place = f"{output.TRIALS}/{folder(name)}/{folder(point.label)}"
        jobs = []
        for number, settings in enumerate(tune.trials(planned(), grid.tune), start=1):
            key = {"stream": name, "method": point.label, "trial": number, "settings": settings}
            jobs.append(_job(f"{place}/trial-{number}", key, planned(**settings), trial=True))
        return jobs

    def _tuned(self, cell: Cell) -> Plan:
        """A cell's plan, with the settings that its trials chose if there were any."""
        rows = self.trials.get((cell.stream, cell.label))
        if not rows:
            return cell.plan
        config = cell.plan.config
        settings = {**config.settings, **tune.choose(rows)}
        tasks = self.grid.tasks[cell.stream]
        return resolve(config.model_copy(update={"settings": settings}), tasks, self.grid.base)

    def _submitted(self) -> set[str]:
        """The names of jobs that a cluster runs, or will; rows of those that it ran are collected.

        Raises NloraError where there are any, and the comparison is to run here.
        """
        submitted = collect(self.out, self.progress)
        if submitted and self.cluster is None:
            raise NloraError(
                f"{len(submitted)} jobs of {self.out} are submitted to a cluster and have not "
                "ended; wait for them, or give --launcher"
            )
        return set(submitted)

    def _run(self, jobs: Sequence[Job], others: Sequence[Job], submitted: Collection[str]) -> None:
        """Run jobs, here or on the cluster; `others` may have what they share."""
        if self.cluster is None:
            common = self.out, self.workers, self.progress, self.commit
            runner = Runner(*common, self._record, self.explain)
            runner.told.update(self.notes)
            runner.run(jobs, others)
            return
        new = [(job, self._about(job)) for job in jobs if job.name not in submitted]
        known = {job.name: job.shared for job in [*jobs, *others]}
        if new:
            self.cluster.submit(new, self.out, self.commit, self.explain, known)
        self.progress.message(f"{len(new)} jobs are submitted, {len(jobs) - len(new)} were before")

    def _record(self, job: Job, outcome: Outcome) -> None:
        """Write a run's row, or its error."""
        output.record(self.out, job.name, {**self._about(job), **outcome}, self.progress)

    def _about(self, job: Job) -> Row:
        """What the row of a run has, however it ends."""
        if job.trial or job.row is not None:
            return job.row or job.key
        trials = self.trials.get((job.key["stream"], job.key["method"]))
        described = document(job.plan)
        return {
            "cell": job.key,
            "configuration": configuration(described),
            "base": described["base"],
            "commit": self.commit,
            "tuning": {"seed": tune.SEED, "trials": trials} if trials else None,
        }

    def _warn_of_dev(self) -> None:
        """Say where dev is test, so that trials hold out a part of train instead."""
        every = {data.name: data for tasks in self.grid.tasks.values() for data in tasks}
        for data in every.values():
            if data.only_tested:
                continue
            if not {e.text for e in data.dev} - {e.text for e in data.test}:
                self.progress.message(
                    f"{data.name} has no dev examples that are not in test: its trials hold out a "
                    "fifth of train"
                )


def _job(name: str, key: Row, plan: Plan, trial: bool = False) -> Job:
    return Job(name, key, plan, shared(plan), trial)


def rows_of(path: Path) -> list[Row]:
    """Those of a ledger, which may not be there yet."""
    return list(ledger.rows(path)) if path.is_file() else []


def trials(path: Path) -> list[Row]:
    """The rows of `tuning.jsonl`, which may not be there yet."""
    return list(ledger.lines(path, tune.Trial)) if path.is_file() else []


def cell_of(row: Row) -> tuple[Any, ...]:
    """Which cell a row is of."""
    cell = row.get("cell") or {}
    return cell.get("stream"), cell.get("method"), cell.get("seed")


def trial_of(row: Row) -> tuple[Any, ...]:
    """Which trial a row is of."""
    return row["stream"], row["method"], row["trial"]
