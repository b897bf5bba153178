"""Processes whose end is the subject of a test, forked from one that has the libraries imported."""

import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

LIMIT = 120
"""Seconds for a process to end; two end within those of pytest-timeout, and say what they did."""


def context() -> Any:
    """Of `multiprocessing`; its one server has imported what the children of any test need.

    A comparison (`study.runner`) would start it with less if it came first.
    """
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["tests.preloaded"])
    forkserver.ensure_running()
    return found


def apart(folder: Path, function: Callable[..., object], *arguments: Any) -> Any:
    """A started process that calls the function, the first of a group of its own.

    What it and its children print is in `stdout` and `stderr` of the folder.
    """
    process = context().Process(target=_apart, args=(folder, function, arguments))
    process.start()
    return process


def _apart(folder: Path, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    os.setsid()
    for number, name in ((1, "stdout"), (2, "stderr")):
        place = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(place, number)
        os.close(place)
    function(*arguments)


@contextmanager
def two(function: Callable[..., object], *arguments: Any, limit: float = LIMIT) -> Iterator[None]:
    """Two processes that call the function with their rank, a port and the arguments, meanwhile.

    Afterwards both must end well within so many seconds.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        told = (server.getsockname()[1], *arguments)
    running = [context().Process(target=function, args=(rank, *told)) for rank in (0, 1)]
    for process in running:
        process.start()
    yield
    for process in running:
        process.join(limit)
    assert [process.exitcode for process in running] == [0, 0]
