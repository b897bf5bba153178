"""Workers that do next to nothing, for the runner's tests; children import them by name."""

import os
import signal
import time
from pathlib import Path

from nlora.store.atomic import write_json
from nlora.store.directory import ModelDirectory, StageRecord


def commit(out: Path, index: int, name: str = "x") -> None:
    """A stage without files."""
    directory = ModelDirectory(out)
    with directory.locked():
        if not directory.exists():
            directory.write_config({"model": "m"})
        directory.commit(StageRecord(index=index, name=name), lambda folder: None)


def work(job, order, connection) -> None:
    """Do what the method of the job says, and note when it was."""
    out = order.out / job.name
    started = time.time()
    kind = job.plan.config.method
    if kind == "fails":
        connection.send(("error", "it is the user's fault", None))
        return
    if kind == "bug":
        connection.send(("error", "KeyError: 'x'", "Traceback …"))
        return
    if kind == "killed":
        connection.send(("start", "training", 3))
        os.kill(os.getpid(), signal.SIGKILL)
    connection.send(("message", f"working on {job.name}"))
    if kind == "has a note":
        connection.send(("message", "rows are left out"))
    connection.send(("start", "training", 2))
    connection.send(("advance", 2, {"loss": 0.5}))
    connection.send(("finish",))
    if kind == "sleeps":
        time.sleep(60)
    if kind == "slow":
        time.sleep(0.5)
    if job.shared.first_stage:
        commit(out, 1)
    if kind == "slow":
        time.sleep(0.3)
    write_json(order.out / f"{job.name}.json", {"pid": os.getpid()})
    source = order.first and order.first.name
    row = {"first": source, "started": started, "ended": time.time(), "workers": order.workers}
    connection.send(("row", row))
