"""Texts sent while they are written, as the server-sent events that OpenAI's clients read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from fastapi.responses import Response, StreamingResponse

from nlora.serve.jobs import Asked
from nlora.serve.openai import Pieces, Reply

if TYPE_CHECKING:
    from nlora.evaluation.writing import Tell, Written

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

    asked = [Asked(text, listener(i)) for i, text in enumerate(texts)]
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
            writing.cancel()  # of a client that has gone

    return StreamingResponse(events(), media_type="text/event-stream")


def _line(event: dict[str, Any]) -> str:
    return f"data: {json.dumps(event)}\n\n"
