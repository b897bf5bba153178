"""Runs jobs in processes, some at a time, and goes on when one fails.

A job waits while another one computes what both share (`study.share`). Processes are begun by
`multiprocessing`: an executor of `concurrent.futures` does not say how a worker ended, and cannot
end one that runs (before Python 3.14).
"""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_all_start_methods, get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from nlora.explain.summary import Wanted
from nlora.progress import Progress, duration
from nlora.study import share
from nlora.study.worker import Job, Order, work

Outcome = dict[str, Any]
"""A job's row; or `error`, in one line, and `traceback` where it is a bug of ours."""


class _Running(NamedTuple):
    job: Job
    process: BaseProcess


class Runner:
    """Runs jobs below a folder. `finished` is called with each one's outcome as it ends."""

    def __init__(
        self,
        out: Path,
        workers: int,
        progress: Progress,
        commit: str | None,
        finished: Callable[[Job, Outcome], None],
        explain: Wanted | None = None,
    ) -> None:
        self.out = out
        self.workers = workers
        self.progress = progress
        self.commit = commit
        self.finished = finished
        self.explain = explain
        self.bar = False
        """Whether a bar is shown."""
        self.told: set[str] = set()
        """What was said already: many cells have the same to say."""

    def run(self, jobs: Sequence[Job], others: Sequence[Job] = ()) -> None:
        """Run the jobs in order; `others` may have what they share. All end with this process."""
        self.known = {job.name: job.shared for job in [*jobs, *others]}
        self.total, self.ended, self.started = len(jobs), 0, time.monotonic()
        waiting = list(jobs)
        running: dict[Connection, _Running] = {}
        try:
            while waiting or running:
                while len(running) < self.workers and (job := self._next(waiting, running)):
                    waiting.remove(job)
                    connection, process = self._start(job)
                    running[connection] = _Running(job, process)
                for connection in wait(list(running)):
                    self._listen(connection, running)  # type: ignore[arg-type]
        finally:
            for _, process in running.values():
                process.terminate()
            for _, process in running.values():
                process.join()

    def _next(self, waiting: Sequence[Job], running: dict[Connection, _Running]) -> Job | None:
        """The first job that has nothing to wait for."""
        making = set()
        for job, _ in running.values():
            for stage, key in enumerate(job.shared):
                if key is not None and not share.has(self.out / job.name, stage):
                    making.add(key)
        return next((job for job in waiting if not making.intersection(job.shared)), None)

    def _start(self, job: Job) -> tuple[Connection, BaseProcess]:
        sources = share.sources(self.out, job.name, job.shared, self.known)
        order = Order(
            self.out, *sources, workers=self.workers, commit=self.commit, explain=self.explain
        )
        self.progress.message(f"{job.name} ({self._progress()})")
        context = _context()
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(job, order, theirs))
        _begin(process, context)
        theirs.close()
        return ours, process

    def _progress(self) -> str:
        said = f"{self.ended} of {self.total} done"
        if not self.ended:
            return said
        left = (time.monotonic() - self.started) / self.ended * (self.total - self.ended)
        return f"{said}, about {duration(left)} left"

    def _listen(self, connection: Connection, running: dict[Connection, _Running]) -> None:
        """Take one message of a worker, or its end."""
        job, process = running[connection]
        try:
            kind, *values = connection.recv()
        except (EOFError, OSError):  # it ended without a word, so somebody ended it
            kind, values = "gone", []
        if kind in ("row", "error", "gone"):
            process.join()
            del running[connection]
            connection.close()
            self._end(job, kind, values, process.exitcode)
            return
        if kind == "message":
            if values[0] in self.told:
                return
            self.told.add(values[0])
        if self.workers > 1:
            if kind in ("message", "start"):
                self.progress.message(f"{job.name}: {values[0]}")
        elif kind == "advance":
            self.progress.advance(values[0], **values[1])
        else:
            self.bar = kind == "start" or (self.bar and kind == "message")
            getattr(self.progress, kind)(*values)

    def _end(self, job: Job, kind: str, values: Sequence[Any], status: int | None) -> None:
        if self.bar:
            self.progress.finish()
            self.bar = False
        self.ended += 1
        if kind == "row":
            self.finished(job, values[0])
        elif kind == "error":
            self.finished(job, {"error": values[0], "traceback": values[1]})
        else:
            how = f"killed by signal {-status}" if status and status < 0 else f"ended ({status})"
            self.finished(job, {"error": f"its process was {how}; out of memory?"})


def _context() -> Any:
    """Forked from a process that has the libraries imported, or fresh.

    CUDA cannot be used in a process forked from one that has so much as asked for devices.
    """
    import torch

    if torch.cuda.is_available() or "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(["nlora.study.preloaded"])
    return context


def _begin(process: Any, context: Any) -> None:
    """Start a worker to which Ctrl-C is nothing: this process has it too, and ends its workers.

    Else one that is still importing the libraries would print a traceback. A fork server passes on
    what it was begun with, so it is begun first: then it imports, while this process listens.
    """
    with _interrupts_held():
        if context.get_start_method() == "spawn":
            process.start()
            return
        from multiprocessing import forkserver  # which Windows lacks

        forkserver.ensure_running()
    process.start()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Take Ctrl-C at the end; processes that are begun meanwhile never do."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows, where nothing is inherited
        yield
        return
    resource_tracker.ensure_running()  # or multiprocessing begins it, and stops holding
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
