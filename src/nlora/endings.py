"""How several processes end: if one fails all do, and one says why.

They agree by two stores: the one by which they joined, and one that the last process keeps, where
all are on one machine. The keeper of the first is the main process, unless an agent of torchrun is;
a store goes with its keeper, and then the other tells whether that has said why.
"""

import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, NoReturn

from nlora.errors import NloraError
from nlora.processes import count, gathered, rank, start, stop

_FAILED, _KNOWN, _SAID = "nlora/failed", "nlora/known", "nlora/said"
"""Keys of the stores: who failed first, that it knows this, that it said why."""
_PATIENCE = timedelta(seconds=20)
"""How long a process that failed waits for the one that failed before it to say why."""

_first: bool | None = None
"""Whether this process was the first to fail, once one has."""
_second: list[Any] | None = None
"""The store that the last process keeps, where there is one; None before they have joined."""


@contextmanager
def together() -> Iterator[None]:
    """Join the other processes; if one fails, let the others end for that reason.

    Raises NloraError in a process that failed because another one had ended.
    """
    global _second
    start()
    try:
        if count() > 1 and _second is None:
            _second = _kept_by_the_last()
        yield
    except NloraError:
        first_to_fail()
        raise
    except Exception as error:
        if count() == 1 or (first_to_fail() and not _peer_is_gone(error)):
            raise
        raise NloraError("another process of this run ended, so this one stops") from error


def first_to_fail() -> bool:
    """Whether no other process failed before this one, which has failed: it says why.

    Asked again it is answered as before: the stores may be gone by then.
    """
    global _first
    if count() == 1:
        return True
    if _first is None:
        _first = _claim()
    return _first


def say_once(say: Callable[[], object]) -> None:
    """Let the process that failed first say why; the others end when it has said it.

    A launcher that sees one process end stops all the rest, which would say nothing then. Where the
    first one was killed before it had spoken, the others speak.
    """
    if first_to_fail():
        say()
        if count() > 1:
            _note(_SAID)
    elif not _await(_SAID):
        say()


def leave(status: int) -> NoReturn:
    """End this process with an exit status.

    One of several ends without taking Python down: threads of gloo and of DistributedDataParallel
    that ask for the interpreter while it goes would abort the process, which has done its work
    (before Python 3.14: github.com/python/cpython/issues/87135).
    """
    if count() == 1:
        sys.exit(status)
    if not status:  # after a failure the others are waited for by nobody
        stop()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _kept_by_the_last() -> list[Any]:
    """A store that ends with the last process; none where they are on several machines."""
    from torch.distributed import TCPStore  # type: ignore[reportPrivateImportUsage]

    here, last = "127.0.0.1", count() - 1
    own = TCPStore(here, 0, is_master=True, wait_for_workers=False) if rank() == last else None
    told = gathered((socket.gethostname(), own.port if own else 0))
    if own is not None:
        return [own]
    with suppress(RuntimeError):  # two machines of one name
        if len({host for host, _ in told}) == 1:
            return [TCPStore(here, told[last][1], timeout=_PATIENCE, wait_for_workers=False)]
    return []


def _stores() -> list[Any]:
    from torch.distributed import distributed_c10d

    return [distributed_c10d._get_default_store(), *(_second or [])]


def _claim() -> bool:
    own, first = str(rank()), None
    for store in _stores():
        with suppress(RuntimeError):  # its keeper is gone
            first = store.compare_set(_FAILED, "", first or own).decode()
    # Without any store there are two that ended, and the second of them knew of the first.
    # The keeper of a store stays until the one that was first knows it.
    if first == own:
        _note(_KNOWN)
    elif rank() in (0, count() - 1):
        _await(_KNOWN)
    return first == own


def _note(key: str) -> None:
    for store in _stores():
        with suppress(RuntimeError):  # its keeper is gone
            store.set(key, "")


def _await(key: str) -> bool:
    """Wait until a key is there. False if it is not in time; True too if all keepers are gone."""
    from torch.distributed import DistStoreError

    for store in _stores():
        try:
            store.wait([key], _PATIENCE)
        except DistStoreError:
            return False
        except RuntimeError:
            continue
        return True
    return True


def _peer_is_gone(error: Exception) -> bool:
    from torch.distributed import DistError

    return isinstance(error, DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error)
    )
