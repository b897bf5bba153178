"""Texts sent while they are written, as the server-sent events that OpenAI's clients read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from threading import Event
from typing import TYPE_CHECKING, Any

from fastapi.responses import Response, StreamingResponse

from nlora.serve.jobs import Asked
from nlora.serve.openai import Pieces, Reply

if TYPE_CHECKING:
    from nlora.evaluation.writing import Over, Tell, Written

Ask = Callable[[Sequence[Asked]], Awaitable[list["Written"]]]
"""Has texts written."""


async def streamed(ask: Ask, texts: Sequence[str], reply: Reply, usage: bool) -> Response:
    """What is written after the texts, in pieces; what was counted last, where `usage` is wanted.

    Raises what `ask` raises before the first token.
    """
    loop = asyncio.get_running_loop()
    news: asyncio.Queue[tuple[int, str] | None] = asyncio.Queue()

    def listener(index: int) -> Tell:
        return lambda text: loop.call_soon_threadsafe(news.put_nowait, (index, text))

    gone = Event()
    over = ends_at(reply, gone)
    asked = [Asked(text, listener(i), over) for i, text in enumerate(texts)]
    writing = asyncio.ensure_future(ask(asked))
    writing.add_done_callback(lambda _: news.put_nowait(None))
    begun = await news.get()
    if begun is None:
        writing.result()

    async def events() -> AsyncIterator[str]:
        try:
            pieces = [Pieces(reply) for _ in texts]
            for event in reply.first():
                yield _line(event)
            told = begun
            while told is not None:
                index, text = told
                if new := pieces[index].more(text):
                    yield _line(reply.piece(index, new))
                told = await news.get()
            written = writing.result()
            for index, one in enumerate(written):
                text, reason = reply.cut(one)
                if new := pieces[index].rest(text):
                    yield _line(reply.piece(index, new))
                yield _line(reply.last(index, reason))
            if usage:
                yield _line(reply.used(written))
            yield "data: [DONE]\n\n"
        finally:
            gone.set()  # as the client may be, for whom nothing more is to be written
            writing.cancel()

    return StreamingResponse(events(), media_type="text/event-stream")


def ends_at(reply: Reply, gone: Event) -> Over:
    """Ends a text at a stop of its request, or once nobody reads it."""
    return lambda read: gone.is_set() or (bool(reply.stops) and reply.stopped(read()))


def _line(event: dict[str, Any]) -> str:
    return f"data: {json.dumps(event)}\n\n"
