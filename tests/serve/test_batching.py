"""What waits while the model is busy is answered together, and each gets its own."""

import asyncio
import threading

import pytest

from nlora.errors import NloraError
from nlora.serve.batching import Batcher, Busy


def served(work, call, largest=8, waiting=20):
    """What `call(batcher)` returns while the batcher runs."""

    async def whole():
        batcher = Batcher(work, largest, waiting)
        running = asyncio.create_task(batcher.run())
        try:
            return await asyncio.wait_for(call(batcher), 10)
        finally:
            running.cancel()

    return asyncio.run(whole())


class Slow:
    """Doubles numbers, and does nothing before it is released."""

    def __init__(self):
        self.batches = []
        self.released = threading.Event()

    def __call__(self, job, items):
        self.released.wait(10)
        self.batches.append((job, list(items)))
        if "bad" in items:
            raise NloraError("bad is no number")
        return [2 * item for item in items]


def test_requests_of_one_job_share_a_batch_and_the_oldest_goes_first():
    slow = Slow()

    async def call(batcher):
        asked = [asyncio.create_task(batcher.ask("a", [0]))]
        await asyncio.sleep(0.01)  # it is being answered
        for job, items in (("a", [1, 2]), ("b", [3]), ("a", [4]), ("a", [5] * 7), ("b", [6])):
            asked.append(asyncio.create_task(batcher.ask(job, items)))
        await asyncio.sleep(0.01)
        assert batcher.waiting == 12
        slow.released.set()
        return await asyncio.gather(*asked)

    assert served(slow, call) == [[0], [2, 4], [6], [8], [10] * 7, [12]]
    batches = [("a", [0]), ("a", [1, 2, 4]), ("b", [3, 6]), ("a", [5] * 7)]
    assert slow.batches == batches


def test_what_depends_on_its_batch_has_one_of_its_own():
    slow = Slow()

    async def call(batcher):
        asked = [asyncio.create_task(batcher.ask("a", [0]))]
        await asyncio.sleep(0.01)
        for item, alone in ((1, False), (2, True), (3, False), (4, True)):
            asked.append(asyncio.create_task(batcher.ask("a", [item], alone)))
        await asyncio.sleep(0.01)
        slow.released.set()
        return await asyncio.gather(*asked)

    assert served(slow, call) == [[0], [2], [4], [6], [8]]
    assert [items for _, items in slow.batches] == [[0], [1, 3], [2], [4]]


def test_one_that_is_wrong_does_not_spoil_the_others():
    slow = Slow()

    async def call(batcher):
        first = asyncio.create_task(batcher.ask("a", [0]))
        await asyncio.sleep(0.01)
        asked = [asyncio.create_task(batcher.ask("a", [item])) for item in (1, "bad", 2)]
        gone = asyncio.create_task(batcher.ask("a", [9]))
        await asyncio.sleep(0.01)
        gone.cancel()
        slow.released.set()
        await first
        return await asyncio.gather(*asked, return_exceptions=True)

    one, error, two = served(slow, call)
    assert (one, two) == ([2], [4])
    assert str(error) == "bad is no number"
    assert [9] not in [items for _, items in slow.batches]


def test_what_is_too_much_is_not_taken_and_calls_come_between_batches():
    slow = Slow()

    async def call(batcher):
        first = asyncio.create_task(batcher.ask("a", [0]))
        await asyncio.sleep(0.01)
        between = asyncio.create_task(batcher.between(lambda: len(slow.batches)))
        with pytest.raises(Busy):
            await batcher.ask("a", [1] * 21)
        slow.released.set()
        assert await between == 1
        return await first

    assert served(slow, call) == [0]
