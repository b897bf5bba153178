"""Answers in OpenAI's forms."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fastapi.responses import JSONResponse, Response, StreamingResponse

if TYPE_CHECKING:
    from nlora.evaluation.writing import Written
    from nlora.serve.forms import ChatForm, CompletionForm
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


def chat_body(model: str, written: Written, form: ChatForm) -> Response:
    """`POST /v1/chat/completions`; as a stream the whole message is one event."""
    text, reason = _cut(written.text.strip(), written, form.stops())
    usage = _usage([written])
    head = _head("chatcmpl", model)
    if form.stream:
        said = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
        end = {"index": 0, "delta": {}, "finish_reason": reason}
        kind = {"object": "chat.completion.chunk"}
        return _stream([{**head, **kind, "choices": [said]}, {**head, **kind, "choices": [end]}])
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
    return JSONResponse({**head, "object": "chat.completion", "choices": [choice], "usage": usage})


def completion_body(model: str, written: Sequence[Written], form: CompletionForm) -> Response:
    """`POST /v1/completions`; as a stream each text is one event."""
    choices = []
    for i, one in enumerate(written):
        text, reason = _cut(one.text, one, form.stops())
        choices.append({"index": i, "text": text, "finish_reason": reason, "logprobs": None})
    head = {**_head("cmpl", model), "object": "text_completion"}
    if form.stream:
        return _stream([{**head, "choices": [choice]} for choice in choices])
    return JSONResponse({**head, "choices": choices, "usage": _usage(written)})


def _cut(text: str, written: Written, stops: Sequence[str]) -> tuple[str, str]:
    """The text up to the first stop, and why it ends there.

    >>> from nlora.evaluation.writing import Written
    >>> _cut("one, two", Written("one, two", 1, 3, False), [",", "two"])
    ('one', 'stop')
    """
    places = [at for stop in stops if stop and (at := text.find(stop)) >= 0]
    if places:
        return text[: min(places)], "stop"
    return text, "stop" if written.ended else "length"


def _head(kind: str, model: str) -> dict[str, Any]:
    return {"id": f"{kind}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}


def _usage(written: Sequence[Written]) -> dict[str, int]:
    prompt = sum(one.prompt_tokens for one in written)
    new = sum(one.new_tokens for one in written)
    return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}


def _stream(events: Sequence[dict[str, Any]]) -> Response:
    def lines() -> Iterator[str]:
        for event in events:
            yield f"data: {json.dumps(event)}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream")
