"""The addresses of the server, and what is wrong with a request in one line.

GET  /                      these addresses
GET  /health                what is served, and how much waits
GET  /v1/models             the names that `model` may have
POST /predict               answers with the probabilities of labels
POST /v1/chat/completions   OpenAI's form: what is written when asked as the examples of a task
POST /v1/completions        OpenAI's form: what is written after a text as it is
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from threading import Event
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from nlora.api.results import as_row
from nlora.data.files import read_texts
from nlora.data.memory import InMemory
from nlora.errors import NloraError, unknown
from nlora.evaluation.writing import Writing
from nlora.serve.batching import Batcher, Busy
from nlora.serve.forms import ChatForm, CompletionForm, PredictForm
from nlora.serve.jobs import Asked, Chat, Complete, Predict
from nlora.serve.limits import BodyLimit, Limits, error_body
from nlora.serve.openai import ChatReply, Reply, listed
from nlora.serve.served import Gone, Served
from nlora.serve.streaming import ends_at, streamed

LOOK = 1.0
"""Seconds after which it is looked, again and again, whether a client still waits."""
CLOSED = 499
"""The status of a request whose client has gone, as nginx has it; nobody reads it."""


def application(
    served: Served,
    limits: Limits | None = None,
    every: float | None = None,
    hosts: Sequence[str] = (),
) -> FastAPI:
    """The server of a model. `every` so many seconds it takes up what its directory holds then.

    With `hosts` requests by another name are refused, so that no page of a browser can reach it.
    """
    limits = limits or Limits()

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        app.state.batcher = batcher = Batcher(served.work, limits.batch, limits.waiting)
        tasks = [asyncio.create_task(batcher.run())]
        if every is not None:
            tasks.append(asyncio.create_task(_keep_up(served, batcher, every)))
        yield
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task

    app = FastAPI(title="nlora serve", lifespan=life, docs_url=None, redoc_url=None)
    app.add_middleware(BodyLimit, most=limits.body)
    if hosts:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    _errors(app)

    async def ask(job: Any, items: Sequence[Any], alone: bool = False) -> list[Any]:
        return await app.state.batcher.ask(job, items, alone)

    async def written(
        request: Request,
        job: Chat | Complete,
        texts: Sequence[str],
        reply: Reply,
        form: ChatForm | CompletionForm,
    ) -> Response:
        # What is drawn by a seed depends on all that is drawn with it.
        alone = job.how.drawn and job.how.seed is not None

        async def write(asked: Sequence[Asked]) -> list[Any]:
            return await ask(job, asked, alone)

        if form.stream:
            usage = form.stream_options.include_usage
            return await streamed(write, texts, reply, usage)
        gone = Event()
        over = ends_at(reply, gone)
        found = await unless_gone(request, write([Asked(text, over=over) for text in texts]), gone)
        if found is None:
            return Response(status_code=CLOSED)
        return JSONResponse(reply.whole(found))

    @app.get("/")
    async def addresses() -> dict[str, Any]:
        found = [route for route in app.routes if isinstance(route, APIRoute)]
        return {
            "addresses": [f"{way} {one.path}" for one in found for way in sorted(one.methods or ())]
        }

    @app.get("/health")
    async def health() -> JSONResponse:
        found = {
            "status": "ok" if served.trouble is None else "stale",
            "model": served.name,
            "tasks": served.tasks,
            "stages": len(served.model.continual.records),
            "waiting": app.state.batcher.waiting,
        }
        return JSONResponse(found | ({"trouble": served.trouble} if served.trouble else {}))

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return listed(served)

    @app.post("/predict")
    async def predict(form: PredictForm) -> dict[str, Any]:
        _known(lambda: served.check_task(form.task))
        texts = _texts(form.asked(), limits)
        answers = await ask(Predict(form.task, form.free), texts)
        return {"answers": [as_row(answer) for answer in answers]}

    @app.post("/v1/chat/completions")
    async def chat(form: ChatForm, request: Request) -> Response:
        task = _known(lambda: served.task_of(form.model))
        how = _writing(form, form.max_completion_tokens or form.max_tokens, served, limits)
        texts = _texts([form.messages], limits)
        reply = ChatReply(form.model or served.name, form.stops())
        return await written(request, Chat(task, how), texts, reply, form)

    @app.post("/v1/completions")
    async def completions(form: CompletionForm, request: Request) -> Response:
        task = _known(lambda: served.task_of(form.model))
        how = _writing(form, form.max_tokens, served, limits)
        texts = _texts(form.prompts(), limits)
        reply = Reply(form.model or served.name, form.stops())
        return await written(request, Complete(task, how), texts, reply, form)

    return app


async def unless_gone(
    request: Request, asking: Awaitable[list[Any]], gone: Event
) -> list[Any] | None:
    """What is asked for; None where the client has gone, for whom it is given up."""
    asked = asyncio.ensure_future(asking)
    try:
        while not (await asyncio.wait({asked}, timeout=LOOK))[0]:
            if await request.is_disconnected():
                return None
        return asked.result()
    finally:
        gone.set()
        asked.cancel()


async def _keep_up(served: Served, batcher: Batcher, every: float) -> None:
    while True:
        await asyncio.sleep(every)
        await batcher.between(served.reload)


def _known(call: Any) -> Any:
    """What the call returns; a name that is not known is a 404."""
    try:
        return call()
    except NloraError as error:
        raise HTTPException(404, str(error)) from None


def _texts(given: Sequence[Any], limits: Limits) -> Sequence[str]:
    """Texts and conversations as the model is asked. Raises NloraError for what is none."""
    if len(given) > limits.texts:
        raise HTTPException(413, f"{len(given)} texts; at most {limits.texts} at a time")
    return read_texts(InMemory(given, "texts"))


def _writing(
    form: ChatForm | CompletionForm, asked: int | None, served: Served, limits: Limits
) -> Writing:
    """How the texts of a request are written."""
    if asked is not None and asked > limits.new_tokens:
        raise HTTPException(400, f"max_tokens is {asked}; at most {limits.new_tokens}")
    usual = served.model.continual.plan.run.max_new_tokens
    return Writing(asked or usual, form.temperature, form.top_p, form.seed)


def _errors(app: FastAPI) -> None:
    """Let every error be one line in OpenAI's form."""

    def answer(status: int, said: str) -> JSONResponse:
        headers = {"retry-after": "1"} if status == 503 else None
        return JSONResponse(error_body(status, said), status, headers)

    @app.exception_handler(NloraError)
    async def refused(request: Request, error: NloraError) -> JSONResponse:
        return answer(400, str(error))

    @app.exception_handler(Busy)
    async def busy(request: Request, error: Busy) -> JSONResponse:
        return answer(503, "too many texts wait already; try again")

    @app.exception_handler(Gone)
    async def gone(request: Request, error: Gone) -> JSONResponse:
        return answer(503, str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        *_, last = loc = [str(part) for part in first["loc"]]
        place, said = ".".join(loc[1:]), first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            place, said = "", str(unknown("key", last, PredictForm.model_fields))
        elif first["type"] == "json_invalid":
            place, said = "", "the body is not JSON"
        elif loc == ["body"] and not isinstance(error.body, dict):
            said = "send a JSON object, and the header Content-Type: application/json"
        return answer(400, f"{place}: {said}" if place else said)

    @app.exception_handler(AnyHTTPException)
    async def plain(request: Request, error: AnyHTTPException) -> JSONResponse:
        return answer(error.status_code, str(error.detail))

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> JSONResponse:
        return answer(500, "an error in the server, which its log tells of")  # uvicorn's does
