"""A comparison: a grid of runs, each done once, with a ledger from which tables are made."""

import shutil
from pathlib import Path
from typing import Any

from nlora import processes
from nlora.data.task import TaskData
from nlora.errors import NloraError
from nlora.models.catalog import resolve
from nlora.report import ledger
from nlora.store.atomic import write_text
from nlora.study import output, tune
from nlora.study.grid import Cell, Grid, Point, folder, stream_name
from nlora.study.rows import commit
from nlora.study.runner import Outcome, Runner
from nlora.study.share import shared
from nlora.study.worker import Job, on_dev
from nlora.training.config import Plan, RunConfig
from nlora.training.progress import Silent, Watcher
from nlora.training.run import decided, prepare

Row = dict[str, Any]


def compare(grid: Grid, out: Path, workers: int = 1, watcher: Watcher | None = None) -> list[Row]:
    """Run every cell of the grid that is not finished yet; the ledger's rows of the whole grid.

    A cell that fails is recorded with its error, does not stop the others, and is tried again the
    next time. Cells run in processes of their own, so a script that calls this needs
    `if __name__ == "__main__":`. Raises NloraError, before anything runs, for all that is wrong
    with the grid, or if the folder holds something else.
    """
    if processes.count() > 1:
        raise NloraError("a comparison starts its own processes: --workers N, without torchrun")
    if workers < 1:
        raise NloraError(f"there must be at least 1 worker, not {workers}")
    if grid.tune < 0:
        raise NloraError(f"there must be at least 0 trials, not {grid.tune}")
    if grid.tune and tune.SEED in grid.seeds:
        raise NloraError(f"seed {tune.SEED} is the one that tuning uses; choose another")
    comparison = _Comparison(grid, out, workers, watcher or Silent())
    comparison.check()
    with output.claimed(out, grid):
        comparison.tune()
        comparison.run()
    return comparison.rows()


class _Comparison:
    def __init__(self, grid: Grid, out: Path, workers: int, watcher: Watcher) -> None:
        self.grid = grid
        self.out = out
        self.workers = workers
        self.watcher = watcher
        self.commit = commit()
        self.ledger = out / output.LEDGER
        self.trials: dict[tuple[str, str], list[Row]] = {}
        """The finished trials of every stream and method."""

    def check(self) -> None:
        """What is wrong with a setting or with the data should not wait for a training."""
        for stream, point in self.grid.pairs():
            self._prepared(self.grid.cell(stream, point, self.grid.seeds[0]).config)

    def tune(self) -> None:
        """Run the trials that are not finished; their models are not kept."""
        if not self.grid.tune:
            return
        path = self.out / output.TUNING
        self._warn_of_dev()
        jobs = [job for stream, point in self.grid.pairs() for job in self._trials(stream, point)]
        begun = self._begun()
        old = {
            _trial(row)
            for row in _rows(path)
            if "error" not in row or (row["stream"], row["method"]) in begun
        }

        def finished(job: Job, outcome: Outcome) -> None:
            if "error" in outcome:
                outcome = {**job.key, "error": self._failed(job, outcome)}
            ledger.write(path, outcome, ("stream", "method", "trial"))

        self._runner(finished).run([job for job in jobs if _trial(job.key) not in old])
        found = {_trial(row): row for row in _rows(path)}
        for job in jobs:
            key = (job.key["stream"], job.key["method"])
            self.trials.setdefault(key, []).append(found[_trial(job.key)])
        shutil.rmtree(self.out / "tuning", ignore_errors=True)

    def _begun(self) -> set[tuple[str, str]]:
        """Streams and methods of which a cell has used the trials: none is tried again then."""
        finished = [row["cell"] for row in _rows(self.ledger) if "error" not in row]
        cells = [cell for cell in self._cells() if (self.out / cell.name).parent.is_dir()]
        return {(c["stream"], c["method"]) for c in finished} | {(c.stream, c.label) for c in cells}

    def run(self) -> None:
        """Run the cells that are not finished."""
        done = {_cell(row) for row in _rows(self.ledger) if "error" not in row}
        jobs = []
        for cell in self._cells():
            try:
                config = self._tuned(cell)
            except NloraError as error:
                self._record(Job(cell.name, cell.key, cell.config), {"error": str(error)})
                continue
            jobs.append(self._job(cell.name, cell.key, config))
        waiting = [job for job in jobs if _cell({"cell": job.key}) not in done]
        if len(done):
            self.watcher.message(f"{len(jobs) - len(waiting)} of {len(jobs)} cells are finished")
        self._runner(self._record).run(waiting, jobs)

    def rows(self) -> list[Row]:
        """The ledger's rows of the grid, in the grid's order."""
        found = {_cell(row): row for row in _rows(self.ledger)}
        return [found[_cell({"cell": cell.key})] for cell in self._cells()]

    def _cells(self) -> list[Cell]:
        return [
            self.grid.cell(stream, point, seed)
            for seed in self.grid.seeds
            for stream, point in self.grid.pairs()
        ]

    def _trials(self, stream: str, point: Point) -> list[Job]:
        config = self.grid.cell(stream, point, tune.SEED).config
        plan, tasks = self._prepared(config, trial=True)
        if not plan.method.stages(tasks):  # nothing is trained
            return []
        config = config.model_copy(update={"evaluate": "seen"})
        place = f"tuning/{folder(stream_name(stream))}/{folder(point.label)}"
        jobs = []
        for number, settings in enumerate(tune.trials(plan, self.grid.tune), start=1):
            key = {"stream": stream_name(stream), "method": point.label, "trial": number}
            given = config.model_copy(update={"settings": {**config.settings, **settings}})
            name = f"{place}/trial-{number}"
            jobs.append(self._job(name, {**key, "settings": settings}, given, trial=True))
        return jobs

    def _tuned(self, cell: Cell) -> RunConfig:
        """A cell's configuration, with the settings that its trials chose if there were any."""
        rows = self.trials.get((cell.stream, cell.label))
        if not rows:
            return cell.config
        settings = {**cell.config.settings, **tune.choose(rows)}
        return cell.config.model_copy(update={"settings": settings})

    def _prepared(self, config: RunConfig, trial: bool = False) -> tuple[Plan, list[TaskData]]:
        assert config.stream is not None
        stream = self.grid.tasks[stream_name(config.stream)]
        if trial:
            stream = [on_dev(data, config.seed) for data in stream]
        return prepare(config, stream)

    def _job(self, name: str, key: Row, config: RunConfig, trial: bool = False) -> Job:
        return Job(name, key, config, shared(*self._prepared(config, trial)), trial)

    def _runner(self, finished: Any) -> Runner:
        return Runner(self.out, self.workers, self.watcher, self.commit, finished)

    def _record(self, job: Job, outcome: Outcome) -> None:
        """Write a cell's row, or its error."""
        trials = self.trials.get((job.key["stream"], job.key["method"]))
        tuning = {"seed": tune.SEED, "trials": trials} if trials else None
        if "error" in outcome:
            plan, tasks = self._prepared(job.config)
            model = resolve(self.grid.model)
            document = {**job.config.model_dump(mode="json"), "settings": decided(plan).settings()}
            document["tasks"] = [data.name for data in tasks]
            outcome = {
                "cell": job.key,
                "configuration": ledger.configuration(document),
                "base": {"title": model.title, "revision": model.revision},
                "commit": self.commit,
                "error": self._failed(job, outcome),
            }
        ledger.write(self.ledger, {**outcome, "tuning": tuning})

    def _failed(self, job: Job, outcome: Outcome) -> str:
        """Say what happened, and keep the traceback of a bug."""
        error = str(outcome["error"]).replace(f"{self.out}/", "")
        self.watcher.message(f"{job.name} failed: {error}")
        if outcome.get("traceback"):
            path = self.out / output.ERRORS / f"{job.name.replace('/', ' ')}.txt"
            path.parent.mkdir(exist_ok=True)
            write_text(path, outcome["traceback"])
            self.watcher.message(f"the traceback is in {path}")
        return error

    def _warn_of_dev(self) -> None:
        """Say where dev is test, so that trials hold out a part of train instead."""
        every = {data.name: data for tasks in self.grid.tasks.values() for data in tasks}
        for data in every.values():
            if not {e.text for e in data.dev} - {e.text for e in data.test}:
                self.watcher.message(
                    f"{data.name} has no dev examples that are not in test: its trials hold out a "
                    "fifth of train"
                )


def _rows(path: Path) -> list[Row]:
    return list(ledger.lines(path)) if path.is_file() else []


def _cell(row: Row) -> tuple[Any, ...]:
    return tuple(row["cell"].values()) if "cell" in row else ()


def _trial(row: Row) -> tuple[Any, ...]:
    return row["stream"], row["method"], row["trial"]
