"""What touches the disk fails once: by an error of the system, or by the death of its process.

`attempt` does something, while the n-th call that changes something below a folder (a point) fails.
Linux only: it tells which file a number stands for.
"""

import builtins
import errno
import fcntl
import io
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from safetensors import SafetensorError

from nlora.errors import NloraError, of_disk

KILLED = "SIGKILL"
FAULTS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EACCES": errno.EACCES, KILLED: None}
"""What happens at a point, with the number of the system's error."""

_BY_PATH = ("replace", "rename", "unlink", "mkdir", "rmdir", "chmod")


class Point(NamedTuple):
    """A call that changes something: what it does, to which path below the folder."""

    kind: str
    path: str

    def __str__(self) -> str:
        return f"{self.kind} {self.path}"


class Outcome(NamedTuple):
    """What became of an attempt. `status` is negative if a signal ended it."""

    status: int
    error: str | None
    """The line that the command line would print; a traceback where it would print that."""
    points: list[Point]


@dataclass
class Fault:
    """Watches the calls below a folder, and lets the `at`-th fail."""

    root: Path
    at: int | None = None
    number: int | None = None
    """Of the system's error; None kills the process."""
    points: list[Point] = field(default_factory=list)
    syncs: bool = False
    """Sync in earnest, which is slow; else it is only counted."""

    def reached(self, kind: str, path: Any, named: bool = True) -> None:
        """A call is about to be made; `named`: its errors name the path."""
        text = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
        if not text.startswith(f"{self.root}/") and text != str(self.root):
            return
        short = re.sub(r"-\d+$", "-PID", text.removeprefix(str(self.root)).lstrip("/") or ".")
        self.points.append(Point(kind, short))
        if len(self.points) != self.at:
            return
        if self.number is None:
            os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()
        raise OSError(self.number, os.strerror(self.number), *([text] if named else []))

    @contextmanager
    def injected(self) -> Iterator[None]:
        """Meanwhile every call is watched."""
        with ExitStack() as stack:

            def replaced(owner: Any, name: str, function: Callable[..., Any]) -> None:
                stack.enter_context(patch.object(owner, name, function))

            for name in _BY_PATH:
                replaced(os, name, self._by_path(name, getattr(os, name)))
            replaced(os, "open", self._open(os.open))
            sync = os.fsync if self.syncs else lambda handle: None
            replaced(os, "fsync", self._by_handle("fsync", sync))
            replaced(fcntl, "flock", self._by_handle("lock", fcntl.flock))
            opened = self._opened(io.open)
            replaced(io, "open", opened)
            replaced(builtins, "open", opened)
            if torch_files := sys.modules.get("safetensors.torch"):
                save = self._saved(torch_files.serialize_file)
                replaced(torch_files, "serialize_file", save)
            yield

    def _by_path(self, kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(path: Any, *args: Any, dir_fd: int | None = None, **more: Any) -> Any:
            target = args[0] if kind in ("replace", "rename") else path
            if dir_fd is not None:
                more["dir_fd"] = dir_fd
                target = f"{_path_of(dir_fd)}/{os.fsdecode(target)}"
            self.reached(kind, target)
            return call(path, *args, **more)

        return watched

    def _by_handle(self, kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(handle: Any, *args: Any) -> Any:
            if not (args and args[0] & fcntl.LOCK_UN):
                number = handle if isinstance(handle, int) else handle.fileno()
                self.reached(kind, _path_of(number), named=False)
            return call(handle, *args)

        return watched

    def _open(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(path: Any, flags: int, *args: Any, **more: Any) -> Any:
            if flags & os.O_CREAT:
                self.reached("create", path)
            return call(path, flags, *args, **more)

        return watched

    def _opened(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(path: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
            if not set(mode) & set("wax+"):
                return call(path, mode, *args, **more)
            self.reached("open", path)
            return _Written(call(path, mode, *args, **more), lambda: self.reached_write(path))

        return watched

    def _saved(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Safetensors writes a file by itself, and has an error of its own."""

        def watched(tensors: Any, path: Any, *args: Any, **more: Any) -> Any:
            try:
                self.reached("save", path)
            except OSError as error:
                said = f"I/O error: {error.strerror} (os error {error.errno})"
                raise SafetensorError(f"Error while serializing: {said}") from None
            return call(tensors, path, *args, **more)

        return watched

    def reached_write(self, path: Any) -> None:
        """A write, whose errors name no path."""
        self.reached("write", path, named=False)


class _Written:
    """A file whose writes are watched."""

    def __init__(self, file: Any, writes: Callable[[], None]) -> None:
        self._file, self._writes = file, writes

    def write(self, data: Any) -> int:
        self._writes()
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_Written":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def _path_of(handle: int) -> str:
    return os.readlink(f"/proc/self/fd/{handle}")


def attempt(
    act: Callable[[], object],
    root: Path,
    at: int | None = None,
    fault: str = KILLED,
    forked: bool = False,
    syncs: bool = False,
) -> Outcome:
    """Do something; the `at`-th point below `root`, if any, fails.

    In this process, but where it is to be killed, or with `forked`.
    """
    watch = Fault(root, at, FAULTS[fault], syncs=syncs)
    if not forked and (at is None or fault != KILLED):
        error = _error(act, watch)
        return Outcome(1 if error else 0, error, watch.points)
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        error = _error(act, watch)
        os.write(theirs, json.dumps([error, watch.points]).encode())
        os._exit(1 if error else 0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(pid, 0)
    error, points = json.loads(told) if told else (None, [])
    return Outcome(os.waitstatus_to_exitcode(status), error, [Point(*p) for p in points])


def _error(act: Callable[[], object], fault: Fault) -> str | None:
    """What the command line would print of a failure, or its traceback."""
    try:
        with fault.injected():
            act()
    except NloraError as error:
        return str(error)
    except OSError as error:
        return of_disk(error) or traceback.format_exc()
    except BaseException:
        return traceback.format_exc()
    return None


def visible(root: Path) -> dict[str, bytes]:
    """What readers see below a folder: no drafts, no locks, no line of JSON without its end."""
    found = {}
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        name = path.relative_to(root).as_posix()
        if any(part.startswith(".") for part in name.split("/")):
            continue
        data = path.read_bytes()
        found[name] = data[: data.rfind(b"\n") + 1] if name.endswith(".jsonl") else data
    return found


def leftovers(root: Path) -> list[str]:
    """What is hidden below a folder, but for locks."""
    hidden = (p.relative_to(root).as_posix() for p in root.rglob(".*"))
    return sorted(name for name in hidden if not name.endswith("lock"))
