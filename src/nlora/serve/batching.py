"""Requests that wait while the model is busy are answered together, by one thread.

A model answers one batch at a time. Whatever has come meanwhile and asks alike is the next batch,
so nobody waits for a batch to fill up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from nlora.errors import NloraError

T = TypeVar("T")


class Busy(Exception):
    """So much is waiting already that nothing more is taken."""


@dataclass(frozen=True)
class _Waiting:
    job: Hashable
    items: Sequence[Any]
    alone: bool
    found: asyncio.Future[list[Any]]


class Batcher:
    """`work(job, items)` gives a result per item, of items of one job from several requests.

    A batch has at most `largest` items, unless one request has more; at most `waiting` wait.
    """

    def __init__(
        self, work: Callable[[Any, list[Any]], list[Any]], largest: int, waiting: int
    ) -> None:
        self._work = work
        self._largest = largest
        self._most = waiting
        self._queue: list[_Waiting] = []
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "model")

    @property
    def waiting(self) -> int:
        """How many items wait to be answered."""
        return sum(len(one.items) for one in self._queue)

    async def ask(self, job: Hashable, items: Sequence[Any], alone: bool = False) -> list[Any]:
        """The results of the items; `alone` in a batch, if what they are depends on the others.

        Raises Busy, and what the work raises of them.
        """
        if self.waiting + len(items) > self._most:
            raise Busy
        one = _Waiting(job, items, alone, asyncio.get_running_loop().create_future())
        self._queue.append(one)
        self._wake.set()
        return await one.found

    async def between(self, call: Callable[[], T]) -> T:
        """What a call returns that is made while no batch is answered."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def run(self) -> None:
        """Answer what comes, until this is cancelled."""
        try:
            while True:
                await self._wake.wait()
                batch = self._take()
                if batch:
                    await self._answer(batch)
                else:
                    self._wake.clear()
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _take(self) -> list[_Waiting]:
        """The next batch: the request that waits longest, and others of its job in their order."""
        self._queue = [one for one in self._queue if not one.found.done()]  # nobody waits for those
        taken: list[_Waiting] = []
        left: list[_Waiting] = []
        count = 0
        for one in self._queue:
            joins = not taken or (
                one.job == taken[0].job
                and not (one.alone or taken[0].alone)
                and count + len(one.items) <= self._largest
            )
            if joins:
                taken.append(one)
                count += len(one.items)
            else:
                left.append(one)
        self._queue = left
        return taken

    async def _answer(self, batch: list[_Waiting]) -> None:
        items = [item for one in batch for item in one.items]
        try:
            found = iter(await self.between(lambda: self._work(batch[0].job, items)))
        except NloraError as error:
            if len(batch) > 1:  # one of them is to blame, and the others are answered
                for one in batch:
                    await self._answer([one])
                return
            _tell(batch, error)
        except Exception as error:
            _tell(batch, error)
        else:
            for one in batch:
                results = [next(found) for _ in one.items]
                if not one.found.done():
                    one.found.set_result(results)


def _tell(batch: Sequence[_Waiting], error: Exception) -> None:
    for one in batch:
        with suppress(asyncio.InvalidStateError):  # cancelled meanwhile
            one.found.set_exception(error)
