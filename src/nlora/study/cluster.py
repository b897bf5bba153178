"""Jobs on a cluster: submitted through submitit, a row each in a file of its own, then collected.

Below the folder of a comparison:

jobs/NAME.json    a job that was submitted and whose row was not collected yet
jobs/ID_…         submitit's files of the job with this number: what is run, and its output
rows/NAME.jsonl   the row of a job that has ended, a ledger of one line; collecting moves it

No two machines write one file, so nothing depends on locks of a shared file system. What to run is
pickled by submitit and read by the job alone; what this module reads is JSON.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nlora.errors import NloraError, unknown
from nlora.explain.summary import Wanted
from nlora.plan.config import read_mapping
from nlora.progress import NoProgress, Progress
from nlora.report import ledger
from nlora.store.atomic import is_running, write_json
from nlora.store.reading import Kind, check, read_json
from nlora.study import output, share
from nlora.study.worker import Job, Order, outcome

Row = dict[str, Any]
Launcher = Literal["slurm", "local"]

_WAITS = {"PENDING", "REQUEUED", "READY", "UNKNOWN", "PREEMPTED", "SUSPENDED", "CONFIGURING"}
"""States of SLURM in which a job is to run yet; it knows nothing of one for some seconds."""
_RUNS = {"RUNNING", "COMPLETING", "STAGE_OUT"}
_GOES_ON = ("running", "waiting")
_REQUEUED = 3
"""How often a job that met its time limit is put into the queue again."""


class Resources(BaseModel):
    """What each job is given: a YAML file of these."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    partition: str | None = None
    hours: Annotated[float, Field(gt=0)] = 24.0
    """After which a job is ended and put into the queue again."""
    gpus: Annotated[int, Field(ge=0)] = 0
    cpus: Annotated[int, Field(ge=1)] = 1
    memory: str | None = None
    """As SLURM has it: 32G."""
    setup: tuple[str, ...] = ()
    """Lines of shell before a job: modules, an environment."""
    at_once: Annotated[int, Field(ge=1)] = 256
    """Jobs of one submission that may run at a time."""
    options: dict[str, str | int] = {}
    """Further options of sbatch, by their long names."""

    @property
    def sbatch(self) -> dict[str, str | int]:
        """The options of sbatch that are set, but for the time."""
        own = {"partition": self.partition, "cpus-per-task": self.cpus, "mem": self.memory}
        own |= {"gpus-per-node": self.gpus or None}
        return {name: value for name, value in own.items() if value is not None} | self.options


def parse_launcher(name: str) -> Launcher:
    """A launcher of this name. Raises NloraError for another."""
    known: tuple[Launcher, ...] = get_args(Launcher)
    if name not in known:
        raise unknown("launcher", name, known)
    return name


def read_resources(path: Path) -> Resources:
    """What a YAML file gives each job. Raises NloraError that names the file and the key."""
    try:
        return Resources.model_validate(read_mapping(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        known = f"; known are {', '.join(Resources.model_fields)}"
        told = first["msg"] + (known if first["type"] == "extra_forbidden" else "")
        raise NloraError(f"{path}: '{key}': {told}") from error


class Submitted(Kind):
    """`jobs/NAME.json`."""

    id: str
    launcher: Launcher
    about: dict[str, Any]
    """What the row of the job has, however it ends."""


class State(NamedTuple):
    """How far a cell is."""

    cell: Row
    state: str
    """`done`, `failed`, `running` or `waiting`."""
    job: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Cluster:
    """Where jobs are run, and with what."""

    launcher: Launcher
    resources: Resources = field(default_factory=Resources)

    def submit(
        self,
        jobs: Sequence[tuple[Job, Row]],
        out: Path,
        commit: str | None,
        explain: Wanted | None,
        known: Mapping[str, share.Shared],
    ) -> None:
        """Submit jobs, each with what its row has however it ends. `known` may share with them.

        Raises NloraError where the cluster takes none.
        """
        executor = self._executor(out)
        order = Order(out.absolute(), None, None, workers=1, commit=commit, explain=explain)
        try:
            with executor.batch():
                begun = [executor.submit(_Run(), job, about, order, known) for job, about in jobs]
        except (RuntimeError, OSError) as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise NloraError(f"{self.launcher} takes no jobs: {said}") from error
        for submitted, (job, about) in zip(begun, jobs, strict=True):
            record = {"id": submitted.job_id, "launcher": self.launcher, "about": about}
            write_json(_record(out, job.name), record)

    def _executor(self, out: Path) -> Any:
        submitit = _submitit()
        (out / output.JOBS).mkdir(exist_ok=True)
        folder, minutes = out.absolute() / output.JOBS, max(1, round(60 * self.resources.hours))
        setup = list(self.resources.setup)
        if self.launcher == "local":
            executor = submitit.LocalExecutor(folder, max_num_timeout=_REQUEUED)
            executor.update_parameters(timeout_min=minutes, setup=setup)
            return executor
        try:
            executor = submitit.SlurmExecutor(folder, max_num_timeout=_REQUEUED)
        except RuntimeError as error:
            raise NloraError(
                "there is no srun here: start this on a machine of the cluster"
            ) from error
        executor.update_parameters(
            job_name="nlora",
            time=minutes,
            setup=setup,
            array_parallelism=self.resources.at_once,
            additional_parameters=self.resources.sbatch,
        )
        return executor


class _Run:
    """What a job does: runs a cell, and writes its row into a file of its own."""

    def __call__(
        self, job: Job, about: Row, order: Order, known: Mapping[str, share.Shared]
    ) -> None:
        sources = share.sources(order.out, job.name, job.shared, known)
        order = Order(order.out, *sources, workers=1, commit=order.commit, explain=order.explain)
        row = {**about, **outcome(job, order, _Printed())}
        ledger.write(_row(order.out, job.name), row)

    def checkpoint(self, *args: Any) -> Any:
        """What goes on when the job is ended for its time or for another: the same again."""
        return _submitit().helpers.DelayedSubmission(self, *args)


class _Printed(NoProgress):
    """A progress for the output of a job."""

    def message(self, text: str) -> None:
        print(text, flush=True)

    def start(self, title: str, total: int) -> None:
        print(f"{title} ({total})", flush=True)


def collect(out: Path, progress: Progress) -> dict[str, tuple[Submitted, str]]:
    """Move the rows of jobs that have ended into the ledger; by name, those that have not.

    A job that ended without a row, for it was killed, is recorded as failed.
    """
    records = sorted((out / output.JOBS).glob("*.json"))
    jobs = {_name(path): check(Submitted, read_json(path), path) for path in records}
    states = _states(jobs.values())
    for name, job in jobs.items():
        if states[job.id] not in _GOES_ON and not _row(out, name).is_file():
            log = f"{output.JOBS}/{job.id}_0_log.err"
            error = f"its job {job.id} ended without a row ({states[job.id]}), see {log}"
            ledger.write(_row(out, name), {**job.about, "error": error})
    for path in sorted((out / output.ROWS).glob("*.jsonl")):
        name = _name(path)
        for row in ledger.lines(path):
            output.record(out, name, row, progress)
        path.unlink(missing_ok=True)
        _record(out, name).unlink(missing_ok=True)
        jobs.pop(name, None)
    going = {name: (job, states[job.id]) for name, job in jobs.items()}
    return {name: found for name, found in going.items() if found[1] in _GOES_ON}


def status(out: Path, progress: Progress) -> list[State]:
    """How far every cell is that has a row or was submitted; what has ended is collected.

    Raises NloraError for a folder that is no comparison's.
    """
    if not (out / output.FILE).is_file():
        raise NloraError(f"{out} is not a comparison's folder: it has no {output.FILE}")
    running = collect(out, progress)
    found = {}
    for job, state in running.values():
        cell = job.about.get("cell") or {name: job.about.get(name) for name in output.TRIAL}
        found[str(cell)] = State(cell, state, job.id)
    path = out / output.LEDGER
    for row in ledger.rows(path) if path.is_file() else ():
        cell, error = row.get("cell") or {}, row.get("error")
        found.setdefault(str(cell), State(cell, "failed" if error else "done", error=error))
    return list(found.values())


def _states(jobs: Collection[Submitted]) -> dict[str, str]:
    """By the number of each job, `running`, `waiting`, or how it has ended."""
    local = {job.id for job in jobs if job.launcher == "local"}
    found = {number: "running" if is_running(int(number)) else "killed" for number in local}
    others = {job.id for job in jobs} - local
    if others:
        watcher = _submitit().SlurmJob.watcher
        for number in others:
            watcher.register_job(number)
        watcher.update()  # one question for all
        for number in others:
            said = watcher.get_state(number, mode="cache").upper()
            found[number] = "waiting" if said in _WAITS else "running" if said in _RUNS else said
    return found


def _record(out: Path, name: str) -> Path:
    return out / output.JOBS / f"{output.flat(name)}.json"


def _row(out: Path, name: str) -> Path:
    return out / output.ROWS / f"{output.flat(name)}.jsonl"


def _name(path: Path) -> str:
    """The run's name, which `output.flat` has made the file's."""
    return path.stem.replace(" ", "/")


def _submitit() -> Any:
    try:
        import submitit
    except ImportError as error:
        raise NloraError("a launcher needs submitit: pip install 'nlora[slurm]'") from error
    return submitit
