"""Answers in OpenAI's forms, whole or in pieces as they are written."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nlora.evaluation.writing import Written
    from nlora.serve.served import Served


def listed(served: Served) -> dict[str, Any]:
    """`GET /v1/models`."""
    return {
        "object": "list",
        "data": [
            {"id": name, "object": "model", "created": served.since, "owned_by": "nlora"}
            for name in served.names
        ],
    }


class Reply:
    """What is said of the texts that one request has the model write."""

    kind = "text_completion"
    chunk = "text_completion"
    prefix = "cmpl"
    strips = False
    """Whether space around a text is left out."""

    def __init__(self, model: str, stops: Sequence[str]) -> None:
        self.stops = [stop for stop in stops if stop]
        self._head = {
            "id": f"{self.prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, written: Sequence[Written]) -> dict[str, Any]:
        """The answer in one piece."""
        choices = []
        for i, one in enumerate(written):
            text, reason = self.cut(one)
            choices.append({"index": i, **self._said(text), "finish_reason": reason})
        told = {"object": self.kind, "choices": [one | {"logprobs": None} for one in choices]}
        return {**self._head, **told, "usage": _usage(written)}

    def stopped(self, text: str) -> bool:
        """Whether a text that grows has come to a stop."""
        return _first(self.stops, text.lstrip() if self.strips else text) is not None

    def cut(self, written: Written) -> tuple[str, str]:
        """The text up to the first stop, and why it ends there."""
        text = written.text.strip() if self.strips else written.text
        at = _first(self.stops, text)
        if at is not None:
            return text[:at], "stop"
        return text, "stop" if written.ended else "length"

    def first(self) -> Iterator[dict[str, Any]]:
        """The events before any piece: none."""
        yield from ()

    def piece(self, index: int, text: str) -> dict[str, Any]:
        """The event of a piece of a text."""
        return self._event({"index": index, "text": text, "finish_reason": None})

    def last(self, index: int, reason: str) -> dict[str, Any]:
        """The event of a text that ends."""
        return self._event({"index": index, "text": "", "finish_reason": reason})

    def used(self, written: Sequence[Written]) -> dict[str, Any]:
        """The event of what was counted."""
        return {**self._head, "object": self.chunk, "choices": [], "usage": _usage(written)}

    def _event(self, choice: dict[str, Any]) -> dict[str, Any]:
        return {**self._head, "object": self.chunk, "choices": [choice | {"logprobs": None}]}

    def _said(self, text: str) -> dict[str, Any]:
        return {"text": text}


class ChatReply(Reply):
    """The same of a conversation."""

    kind = "chat.completion"
    chunk = "chat.completion.chunk"
    prefix = "chatcmpl"
    strips = True

    def first(self) -> Iterator[dict[str, Any]]:
        """Who speaks."""
        yield self._delta({"role": "assistant", "content": ""})

    def piece(self, index: int, text: str) -> dict[str, Any]:
        """The event of a piece of the message."""
        return self._delta({"content": text})

    def last(self, index: int, reason: str) -> dict[str, Any]:
        """The event of the message's end."""
        return self._delta({}, reason)

    def _delta(self, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return self._event({"index": 0, "delta": delta, "finish_reason": reason})

    def _said(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text}}


@dataclass
class Pieces:
    """A text that grows, as far as it is certain to stay what it is."""

    reply: Reply
    sent: str = ""

    def more(self, text: str) -> str:
        """What can be sent now of the text that is written so far.

        Not what a stop may begin with, a space that may be the last, or half a character.

        >>> pieces = Pieces(ChatReply("m", ["###"]))
        >>> pieces.more(" one"), pieces.more(" one "), pieces.more(" one two#"), pieces.more(" o#")
        ('one', '', ' two', '')
        """
        stops = self.reply.stops
        text = text.lstrip() if self.reply.strips else text
        at = _first(stops, text)
        if at is None:
            text = text.rstrip("\N{REPLACEMENT CHARACTER}")
            longest = min(max(map(len, stops), default=1) - 1, len(text))
            held = range(longest, 0, -1)
            open_ = (n for n in held if any(stop.startswith(text[-n:]) for stop in stops))
            text = text[: len(text) - next(open_, 0)]
        return self._new((text if at is None else text[:at]).rstrip())

    def rest(self, text: str) -> str:
        """What is left to be sent of the whole text."""
        return self._new(text)

    def _new(self, text: str) -> str:
        if not text.startswith(self.sent):  # a token has changed how those before it are read
            return ""
        new, self.sent = text[len(self.sent) :], text
        return new


def _first(stops: Sequence[str], text: str) -> int | None:
    """Where the first stop begins."""
    places = [at for stop in stops if (at := text.find(stop)) >= 0]
    return min(places, default=None)


def _usage(written: Sequence[Written]) -> dict[str, int]:
    prompt = sum(one.prompt_tokens for one in written)
    new = sum(one.new_tokens for one in written)
    return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}
