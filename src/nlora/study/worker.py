"""One run in a process of its own: if it fails or is killed, the others go on.

Its memory is then its own too, so that peaks can be compared.
"""

import gc
import os
import threading
import traceback
from dataclasses import dataclass, field
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from nlora.backbones.quiet import quiet
from nlora.continual.learning import run_plan
from nlora.errors import NloraError, of_disk, of_memory
from nlora.explain.summary import Wanted
from nlora.plan.resolve import Plan
from nlora.progress import Progress
from nlora.store.directory import ModelDirectory
from nlora.study import rows, share


@dataclass(frozen=True)
class Job:
    """A run of a grid, or a trial of tuning."""

    name: str
    """Its folder below the output folder."""
    key: dict[str, Any]
    """What it is called in the ledger."""
    plan: Plan
    shared: share.Shared = field(default_factory=share.Shared)
    trial: bool = False
    """Evaluate on dev and never on test."""
    row: dict[str, Any] | None = None
    """Its row in the ledger, where it is finished and to be explained alone."""


@dataclass(frozen=True)
class Order:
    """What a worker needs to know beside its job."""

    out: Path
    zero: Path | None
    """A run whose zero-shot evaluation is taken over."""
    first: Path | None
    """A run whose first stage is taken over."""
    workers: int
    commit: str | None
    explain: Wanted | None = None
    """Whether each run is explained, and how."""


class Remote:
    """A progress that sends everything to the parent process."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def message(self, text: str) -> None:
        self.connection.send(("message", text))

    def start(self, title: str, total: int) -> None:
        self.connection.send(("start", title, total))

    def advance(self, count: int = 1, **values: float) -> None:
        self.connection.send(("advance", count, values))

    def finish(self) -> None:
        self.connection.send(("finish",))


def work(job: Job, order: Order, connection: Connection) -> None:
    """Run the job; the last thing sent is its row, or what was wrong and the traceback of a bug."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        found = outcome(job, order, Remote(connection))
        if "error" in found:
            connection.send(("error", found["error"], found["traceback"]))
        else:
            connection.send(("row", found))
    except (KeyboardInterrupt, BrokenPipeError):  # the parent is interrupted, and says so
        pass


def outcome(job: Job, order: Order, progress: Progress) -> dict[str, Any]:
    """Run the job: its row, or `error` in one line, and `traceback` where that is a bug."""
    quiet()
    gc.freeze()  # what was imported stays; the Trainer collects garbage at every stage
    try:
        _divide_threads(order.workers)
        return _run(job, order, progress)
    except BrokenPipeError:
        raise
    except NloraError as error:
        return {"error": str(error), "traceback": None}
    except Exception as error:
        told = of_disk(error) if isinstance(error, OSError) else of_memory(error)
        bug = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return {"error": told or bug, "traceback": None if told else traceback.format_exc()}


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _divide_threads(workers: int) -> None:
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // workers))


def _run(job: Job, order: Order, progress: Progress) -> dict[str, Any]:
    out = order.out / job.name
    if job.row is not None and order.explain is not None:
        return {**job.row, "explained": order.explain.of(out, progress)}
    share.adopt(job.plan, out, order.zero, order.first)
    results = run_plan(job.plan, out, progress)
    if job.trial:
        measured = ("average_accuracy", "learning_accuracy", "seconds")
        return {**job.key, **{name: results[name] for name in measured}}
    row = {"cell": job.key, **rows.row(ModelDirectory(out), order.commit)}
    if order.explain is not None:
        try:
            row["explained"] = order.explain.of(out, progress)
        except NloraError as error:  # the run stands; the same command tries again
            progress.message(f"{job.name} is not explained: {error}")
    return row
