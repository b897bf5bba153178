"""Whether somebody else's code ends, tried in a process of its own with limits."""

import os
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path

SECONDS = 10
"""Of CPU time that a trial may take."""
ROOM = 2**30
"""Bytes that it may take beside what this process has."""
_WAIT = 120.0
_TOO_MUCH = 3
"""The status of a trial that asked for too much memory."""


def endless(call: Callable[[], object], seconds: int = SECONDS, room: int = ROOM) -> str | None:
    """What a call takes too much of, in words; None if it ends, well or not.

    The call is done in a fork of this process, in which it can change nothing. On Windows, which
    has no fork, nothing is tried; and memory is limited on Linux alone.
    """
    if not hasattr(os, "fork"):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other threads exist, and have nothing that a call needs
        pid = os.fork()
    if pid == 0:
        _try(call, seconds, room)
    status, used = _ended(pid)
    if os.WIFEXITED(status):
        return f"more than {room // 2**20} MB" if os.WEXITSTATUS(status) == _TOO_MUCH else None
    # Killed: by its limit of CPU time, by the system for want of memory, or for having hung.
    return f"more than {seconds} s" if used > seconds / 2 else None


def _try(call: Callable[[], object], seconds: int, room: int) -> None:
    """Do it under the limits, and end the process."""
    import resource

    status = 0
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _limit(resource.RLIMIT_CORE, 0)
        _limit(resource.RLIMIT_CPU, seconds)
        statm = Path("/proc/self/statm")
        if statm.exists():
            size = int(statm.read_text().split()[0]) * resource.getpagesize() + room
            _limit(resource.RLIMIT_AS, size)
        call()
    except MemoryError:
        status = _TOO_MUCH
    except BaseException:  # what it raises is told when it is done in earnest
        pass
    finally:
        os._exit(status)


def _limit(kind: int, most: int) -> None:
    """Let this process have at most so much, and no more than it may have already."""
    import resource

    _, hard = resource.getrlimit(kind)
    bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (bound, hard))


def _ended(pid: int) -> tuple[int, float]:
    """How a process ended, and the CPU time that it took; one that hangs is killed."""
    until, pause = time.monotonic() + _WAIT, 0.001
    while True:
        found, status, usage = os.wait4(pid, os.WNOHANG)
        if found:
            return status, usage.ru_utime + usage.ru_stime
        if time.monotonic() > until:
            os.kill(pid, signal.SIGKILL)
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
