"""Copies of data sets: a new data folder with the same tasks, changed in one thing."""

import os
from collections.abc import Callable
from pathlib import Path

from nlora.data.benchmark import find_datasets, read_task
from nlora.data.messages import plain
from nlora.data.streams import load_stream
from nlora.data.task import TaskData
from nlora.data.writing import write_rows, writing
from nlora.errors import NloraError


def copied(
    stream: str, data: Path | None, out: Path, change: Callable[[TaskData], TaskData]
) -> list[TaskData]:
    """Write what `change` makes of the stream's data sets to the new data folder `out`.

    Returns the data sets that were written. The folder appears by one rename. Raises NloraError
    when it exists already, and for a task that has no labels or is not of a data folder.
    """
    tasks = load_stream(stream, data)
    folders = find_datasets(data) if data is not None else {}
    out = out.expanduser()
    if os.path.lexists(out):
        raise NloraError(f"{out} exists already; choose another folder")
    found = []
    with writing(out) as work:
        for known in tasks:
            task = known.task
            own = folders.get(task.name)
            if task.labels is None or own is None or read_task(task.name, own[0]) != task:
                raise NloraError(
                    f"'{task.name}' has no labels, or is of no data folder; name data sets of one"
                )
            changed = change(known)
            _write(work / task.group / task.dataset, changed)
            found.append(changed)
    return found


def _write(folder: Path, data: TaskData) -> None:
    write_rows(folder / "labels.json", data.task.labels)
    for split, examples in {"train": data.train, "dev": data.dev, "test": data.test}.items():
        if examples:
            rows = [{"label": e.label, "sentence": plain(e.text)} for e in examples]
            write_rows(folder / f"{split}.json", rows)
