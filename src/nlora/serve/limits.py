"""How much a server takes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nlora.visible import visible

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(frozen=True)
class Limits:
    """Sizes of requests, of batches and of the queue."""

    texts: int = 256
    """Of one request."""
    body: int = 1_000_000
    """Bytes of one request."""
    new_tokens: int = 1024
    """Of one text that is written."""
    batch: int = 64
    """Texts that are answered together."""
    waiting: int = 1024
    """Texts that wait for the model, of all requests together."""


class BodyLimit:
    """Refuses requests of more bytes than `most` (413), before they are read whole."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, as long as it is small enough."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        told = dict(scope["headers"]).get(b"content-length", b"0")
        if not told.isdigit() or int(told) > self.most:
            await self._refuse(send)
            return
        read: list[Message] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return  # the client has gone
            read.append(message)
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
            if size > self.most:
                await self._refuse(send)
                return

        async def again() -> Message:
            return read.pop(0) if read else await receive()

        await self.app(scope, again, send)

    async def _refuse(self, send: Send) -> None:
        said = f"a request may have {self.most} bytes; send fewer texts at a time"
        body = json.dumps(error_body(413, said)).encode()
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def error_body(status: int, said: str) -> dict[str, object]:
    """An error in OpenAI's form; half a character, which no answer can hold, is written out."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": visible(said), "type": kind, "param": None, "code": status}}
