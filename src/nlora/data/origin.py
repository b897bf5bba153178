"""Where the rows of a task came from, read again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nlora.data.files import task_from_files
from nlora.data.formats import source
from nlora.data.reading import Reading
from nlora.data.streams import load_stream
from nlora.data.task import TaskData
from nlora.errors import NloraError


def read_again(origin: Mapping[str, Any]) -> TaskData:
    """The task of a `TaskData.origin`, as its files are now.

    Raises NloraError where they are gone, and as reading them does.
    """
    if "dataset" in origin:
        [found] = load_stream(origin["dataset"], Path(origin["data"]))
        return found
    arguments = dict(origin)
    try:
        arguments["reading"] = Reading(**arguments["reading"])
        for split in ("train", "test", "dev"):
            arguments[split] = arguments[split] and source(arguments[split], Path())
        return task_from_files(**arguments)
    except (TypeError, KeyError):
        raise NloraError("the record does not say where they are as this version does") from None
