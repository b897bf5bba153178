"""The server as a process: where it listens, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from nlora import processes
from nlora.continual.tasks import answerable_tasks
from nlora.errors import NloraError
from nlora.explain.answers import AUTO, correct_by
from nlora.progress import Progress
from nlora.serve.limits import Limits
from nlora.store.directory import ModelDirectory

EVERY = 2.0
"""Seconds between two looks for new stages."""
PATIENCE = 5
"""Seconds that the end waits for requests which are not whole or not answered."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    path: Path,
    progress: Progress,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str | None = None,
    reload: bool = False,
    limits: Limits | None = None,
    answers: str = AUTO,
) -> None:
    """Answer requests with the model of a directory, until Ctrl-C.

    With `reload` the stages that are learned, accepted or taken back meanwhile are taken up; no
    request is dropped for it. Port 0 is any that is free; `answers` as for `nlora predict`.
    Raises NloraError if there is no model, if the place is taken, and where the extra `serve` is
    missing.
    """
    correct = correct_by(answers)
    if processes.count() > 1:
        raise NloraError("`nlora serve` runs in one process, without torchrun")
    missing = [library for library in ("fastapi", "uvicorn") if find_spec(library) is None]
    if missing:
        raise NloraError(f"`nlora serve` needs {' and '.join(missing)}: pip install 'nlora[serve]'")
    listening = _listen(host, port)
    with listening:
        answerable_tasks(ModelDirectory(path))  # or it is refused before anything is loaded
        progress.message(f"loading {path}")
        from nlora.api.models import load

        model = load(path)  # its own progress would be told of every request
        import uvicorn

        from nlora.serve.app import application
        from nlora.serve.served import Served

        served = Served(model, name or path.resolve().name, progress, correct)
        local = host in LOOPBACK
        app = application(
            served, limits, EVERY if reload else None, [*LOOPBACK, "[::1]"] if local else ()
        )
        server = uvicorn.Server(
            uvicorn.Config(
                app, log_level="warning", access_log=False, timeout_graceful_shutdown=PATIENCE
            )
        )
        logging.getLogger("uvicorn.error").addFilter(not_cancelled)
        place = f"[{host}]" if ":" in host else host
        at = f"http://{place}:{listening.getsockname()[1]}"
        with suppress(KeyboardInterrupt):  # uvicorn has answered what it had taken by then
            progress.message(f"serving '{served.name}' at {at}; Ctrl-C ends it")
            if not local:
                progress.message(f"{host} can be reached from elsewhere; nobody is asked who it is")
            server.run(sockets=[listening])


def not_cancelled(record: logging.LogRecord) -> bool:
    """Whether a line of the log is anything else than the traceback of what was given up."""
    error = record.exc_info[1] if record.exc_info else None
    # At a second Ctrl-C the application itself is; Starlette sends that traceback as a text.
    given_up = isinstance(error, asyncio.CancelledError)
    return not given_up and "asyncio.exceptions.CancelledError" not in record.getMessage()


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises NloraError if it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Without the protocol asyncio does not switch Nagle's algorithm off, and a client waits 40 ms.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # on Windows it would share the port with another process
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(1024)
    except (OSError, OverflowError) as error:
        found.close()
        said = getattr(error, "strerror", None) or str(error)
        raise NloraError(f"cannot listen at {host}, port {port}: {said} (--host, --port)") from None
    return found
