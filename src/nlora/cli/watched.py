"""Tasks that are only tested, as the command line names them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nlora.errors import NloraError

if TYPE_CHECKING:
    from nlora.data.task import TaskData


def watched_task(given: str, data: Path | None) -> TaskData:
    """The tests of `[NAME=]FILE`, of a YAML file of one task, or of a data set of the benchmark.

    Raises NloraError as reading them does.
    """
    from nlora.data.files import read_entry, task_from_files
    from nlora.data.formats import is_source, source, title
    from nlora.data.streams import load_stream

    name, _, place = given.rpartition("=")
    if is_source(place):
        rows = source(place, Path())
        return task_from_files(name or title(rows), None, rows)
    path = Path(os.path.expanduser(place))
    if path.suffix.lower() in (".yaml", ".yml"):
        found = read_entry(path)
    else:
        stream = load_stream(place, data)
        if len(stream) != 1:
            raise NloraError(f"--watch takes one task, '{place}' is a stream; repeat the option")
        found = stream[0]
    if name:
        raise NloraError(f"--watch {given}: '{place}' has a name of its own")
    return replace(found, train=(), dev=(), only_tested=True, rows=None)
