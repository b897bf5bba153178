"""The server answers as the commands do, and says in one line what is wrong with a request."""

import asyncio
import functools
import json
import shutil
from threading import Event

import httpx2
import numpy as np
import pytest
from fastapi.testclient import TestClient

import nlora
from nlora.continual import answering
from nlora.continual.taking_back import rollback
from nlora.data.task import Example
from nlora.evaluation.answers import answer
from nlora.evaluation.matching import Correction
from nlora.evaluation.writing import Writing
from nlora.methods.base import Route
from nlora.progress import NoProgress
from nlora.serve.app import application, unless_gone
from nlora.serve.limits import Limits
from nlora.serve.openai import Pieces, Reply
from nlora.serve.served import Served
from nlora.serve.streaming import ends_at
from nlora.store.directory import ModelDirectory
from tests.tiny import save

HERE = "http://127.0.0.1"
LIMITS = Limits(texts=8, body=2000, new_tokens=16)
DEEP = functools.reduce(lambda inner, _: [inner], range(900), "a")
TEXTS = ["xxx 1", "yyy 2", "zzz 3"]


def app_of(model, every=None):
    served = Served(model, "mine", NoProgress())
    return application(served, LIMITS, every, ["127.0.0.1"])


@pytest.fixture(scope="module")
def model(finished):
    return nlora.load(finished("inc-lora").out)


@pytest.fixture(scope="module")
def client(model):
    with TestClient(app_of(model), base_url=HERE) as found:
        yield found


def test_it_predicts_as_the_command(client, finished):
    found = client.post("/predict", json={"texts": TEXTS, "task": "colour"})
    assert found.status_code == 200
    expected = answering.predict(finished("inc-lora").out, TEXTS, "colour")
    for row, answered in zip(found.json()["answers"], expected, strict=True):
        assert (row["text"], row["task"]) == (answered.text, "colour")
        assert row["answer"] == answered.answer
        assert row["probabilities"] == pytest.approx(answered.probabilities)
    free = client.post("/predict", json={"text": TEXTS[0], "task": "animal", "free": True})
    assert "probabilities" not in free.json()["answers"][0]


def test_labels_are_matched_by_what_was_found_of_the_stages_that_are_served(finished, tmp_path):
    out = shutil.copytree(finished("inc-lora").out, tmp_path / "out")
    always_b = Correction(np.array([0.0, 1e6, 0.0]))
    asked = []

    def correct(model, names):
        asked.append(list(names))
        return {"colour": always_b}

    served = Served(nlora.load(out), "mine", NoProgress(), correct)
    ask = {"texts": TEXTS, "task": "colour"}
    with TestClient(application(served, LIMITS), base_url=HERE) as client:
        rows = client.post("/predict", json=ask).json()["answers"]
        assert {row["answer"] for row in rows} == {"b"}
        free = client.post("/predict", json={**ask, "free": True}).json()["answers"]
        plain = answering.predict(out, TEXTS, "colour", free=True)
        assert [row["answer"] for row in free] == [answered.answer for answered in plain]
        served.reload()
        assert asked == [["colour", "animal"]]  # nothing is new
        rollback(out, "colour")
        served.reload()
    assert asked == [["colour", "animal"], ["colour"]]


def test_a_router_finds_the_task_where_none_is_named(finished):
    out = finished("de-lora").out
    with TestClient(app_of(nlora.load(out)), base_url=HERE) as client:
        rows = client.post("/predict", json={"texts": TEXTS}).json()["answers"]
        told = {"messages": [{"role": "user", "content": TEXTS[0]}]}
        chat = client.post("/v1/chat/completions", json=told)
    expected = answering.predict(out, TEXTS)
    assert [row["task"] for row in rows] == [a.task for a in expected]
    assert [row["confidence"] for row in rows] == pytest.approx([a.confidence for a in expected])
    assert chat.status_code == 200


@pytest.mark.parametrize("setting", ["none", "base"])
def test_a_chat_far_from_every_task_is_answered_as_the_settings_say(
    finished, tmp_path, monkeypatch, setting
):
    out = shutil.copytree(finished("de-lora").out, tmp_path / "out")
    document = ModelDirectory(out).config()
    document["settings"]["unknown"] = setting
    ModelDirectory(out).write_config(document)
    far = Route(stage=1, distance=9.0, limit=1.0)
    monkeypatch.setattr(answering, "routes_of", lambda model, texts: [far for _ in texts])
    model = nlora.load(out)
    turns = [{"role": "user", "content": TEXTS[0]}]
    with TestClient(app_of(model), base_url=HERE) as client:
        [row] = client.post("/predict", json={"text": TEXTS[0]}).json()["answers"]
        told = client.post("/v1/chat/completions", json={"messages": turns})
    if setting == "none":
        assert (told.status_code, told.json()["error"]["message"]) == (400, row["reason"])
    else:
        [expected] = model.continual.bare([json.dumps(turns)])
        assert told.json()["choices"][0]["message"]["content"] == expected.text


def test_a_chat_that_leaves_no_room_in_the_model_is_refused(tmp_path):
    save("gpt2", tmp_path / "base", layers=1)
    rows = [("xxx", "a"), ("yyy", "b")]
    task = nlora.Task("colour", train=rows, test=rows[:1], labels=["a", "b"])
    settings = {"epochs": 1, "max_new_tokens": 4, "precision": "fp32"}
    made = {"model": tmp_path / "base", "out": tmp_path / "out", "settings": settings}
    nlora.run([task], method="inc-lora", **made)
    app = application(Served(nlora.load(tmp_path / "out"), "mine", NoProgress()))
    asked = {"messages": [{"role": "user", "content": "a" * 900}]}
    with TestClient(app, base_url=HERE) as client:
        found = client.post("/v1/chat/completions", json=asked | {"max_tokens": 257})
        fits = client.post("/v1/chat/completions", json=asked)
    said = "the prompt has 512 tokens and 257 are to be written; at most 768 in all"
    assert (found.status_code, found.json()["error"]["message"]) == (400, said)
    assert fits.status_code == 200


def test_a_chat_is_what_the_model_writes_when_asked_as_the_task(client, model):
    held = model.continual
    [task] = [data.task for data in held.stream if data.name == "colour"]
    example = Example(task, TEXTS[0], "")
    model_, encoder = held.adapter.model, held.encoder
    [expected] = answer(model_, encoder, [example], max_new_tokens=6, early_stop=False)
    asked = {"model": "mine:colour", "max_tokens": 6}
    asked["messages"] = [{"role": "user", "content": TEXTS[0]}]
    found = client.post("/v1/chat/completions", json=asked).json()
    [choice] = found["choices"]
    assert choice["message"] == {"role": "assistant", "content": expected.text}
    assert choice["finish_reason"] in ("stop", "length")
    assert found["usage"]["prompt_tokens"] == len(encoder.prompts([example])[0][0])
    drawn = {**asked, "temperature": 1.5, "seed": 3}
    twice = [client.post("/v1/chat/completions", json=drawn).json()["choices"] for _ in "ab"]
    assert twice[0] == twice[1]
    cold = client.post("/v1/chat/completions", json={**asked, "temperature": 1e-300, "seed": 1})
    assert cold.json()["choices"] == [choice]
    unset = {**asked, "temperature": None, "n": None, "stop": None, "tools": []}
    assert client.post("/v1/chat/completions", json=unset).json()["choices"] == [choice]


def test_a_completion_goes_on_from_the_text_as_it_is(client, model):
    texts = ["Which colour?\nxxx 1\nAnswer:", "Which animal?\nyyy 2\nAnswer:"]
    asked = {"prompt": texts, "max_tokens": 5}
    found = client.post("/v1/completions", json=asked).json()
    for text, choice in zip(texts, found["choices"], strict=True):
        inputs = model.tokenizer(text, return_tensors="pt")
        out = model.model.generate(**inputs, max_new_tokens=5, do_sample=False)
        new = out[0, inputs["input_ids"].shape[1] :]
        assert choice["text"] == model.tokenizer.decode(new, skip_special_tokens=True)
    whole = max((choice["text"] for choice in found["choices"]), key=len)
    stopped = client.post("/v1/completions", json={**asked, "stop": whole[-1]}).json()["choices"]
    assert whole[: whole.index(whole[-1])] in [choice["text"] for choice in stopped]
    assert {choice["finish_reason"] for choice in stopped} <= {"stop", "length"}


def test_nothing_is_written_beyond_a_stop_or_for_a_client_that_has_gone(client, model):
    asked = {"prompt": TEXTS[0], "max_tokens": 16, "temperature": 2, "seed": 3}
    whole = client.post("/v1/completions", json=asked).json()
    [choice] = whole["choices"]
    stop = choice["text"][1:3]
    cut = client.post("/v1/completions", json={**asked, "stop": stop}).json()
    assert cut["choices"][0]["text"] == choice["text"][: choice["text"].index(stop)]
    assert cut["usage"]["completion_tokens"] < whole["usage"]["completion_tokens"]
    read = []

    def over(text):
        read.append(text())
        return True

    ids = model.continual.encoder.raw(TEXTS[:1])
    [found] = model.continual.asked.continued(ids, Writing(16), overs=[over])
    assert (found.new_tokens, found.ended) == (1, False)
    assert found.text == read[-1]
    gone = Event()
    assert not ends_at(Reply("m", []), gone)(lambda: "text")
    gone.set()
    assert ends_at(Reply("m", []), gone)(lambda: "text")


def test_who_has_gone_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("nlora.serve.app.LOOK", 0.01)

    class Request:
        async def is_disconnected(self):
            return True

    async def asked():
        gone, never = Event(), asyncio.get_running_loop().create_future()
        found = await unless_gone(Request(), never, gone)
        return found, gone.is_set(), never.cancelled()

    assert asyncio.run(asked()) == (None, True, True)


@pytest.mark.parametrize("stop", ["Observation:", "<|im_end|>", "Human:", "ab"])
def test_no_part_of_a_stop_is_streamed(stop):
    pieces = Pieces(Reply("m", [stop]))
    sent = [pieces.more(stop[:n]) for n in range(1, len(stop) + 1)]
    assert "".join(sent) + pieces.rest("") == ""


def test_values_that_openai_s_clients_send_are_taken(client):
    asked = {"prompt": TEXTS[0], "max_tokens": 4}
    [greedy] = client.post("/v1/completions", json=asked).json()["choices"]
    cold = {"temperature": 1, "top_p": 0, "seed": -1}
    assert client.post("/v1/completions", json=asked | cold).json()["choices"] == [greedy]


def test_what_is_drawn_follows_its_seed_whoever_asks_beside_it(model):
    drawn = {"prompt": TEXTS * 2, "max_tokens": 16, "temperature": 2}

    async def whole():
        app = app_of(model)
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url=HERE) as client,
        ):

            async def ask(**more):
                found = await client.post("/v1/completions", json=drawn | more)
                return [choice["text"] for choice in found.json()["choices"]]

            alone = await ask(seed=1)
            beside = await asyncio.gather(*(ask(seed=1) for _ in range(3)))
            free = []
            for _ in range(2):
                await ask(seed=1)
                free.append(await ask())
            return alone, beside, free

    alone, beside, free = asyncio.run(whole())
    assert beside == [alone] * 3
    assert free[0] != free[1]  # neither follows the seed of the request before it


def events(found):
    """What a stream of events holds, without its end."""
    assert found.headers["content-type"].startswith("text/event-stream")
    *lines, end, nothing = found.text.split("\n\n")
    assert (end, nothing) == ("data: [DONE]", "")
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def test_a_chat_is_streamed_in_the_form_of_openai(client):
    messages = [{"role": "user", "content": TEXTS[0]}]
    asked = {"model": "mine:colour", "messages": messages, "max_tokens": 8}
    [whole] = client.post("/v1/chat/completions", json=asked).json()["choices"]
    more = {"stream": True, "stream_options": {"include_usage": True}}
    found = events(client.post("/v1/chat/completions", json=asked | more))
    assert {one["object"] for one in found} == {"chat.completion.chunk"}
    assert len({one["id"] for one in found}) == 1
    *choices, used = [one["choices"] for one in found]
    first, *pieces, end = [choice["delta"] for [choice] in choices]
    assert first == {"role": "assistant", "content": ""}
    assert "".join(piece["content"] for piece in pieces) == whole["message"]["content"]
    assert (end, used) == ({}, [])
    assert [choice["finish_reason"] for [choice] in choices[-2:]] == [None, whole["finish_reason"]]
    assert found[-1]["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize("stops", [0, 2])
def test_several_texts_are_streamed_in_pieces_beside_each_other(client, stops):
    prompts = ["Which colour?\nxxx 1\nAnswer:", "Which animal?\nyyy 2\nAnswer:"]
    asked = {"prompt": prompts, "max_tokens": 8, "temperature": 2, "seed": 1}
    whole = client.post("/v1/completions", json=asked).json()["choices"]
    longest = max((choice["text"] for choice in whole), key=len)
    asked |= {"stop": longest[-stops:]} if stops else {}
    whole = client.post("/v1/completions", json=asked).json()["choices"]
    found = events(client.post("/v1/completions", json={**asked, "stream": True}))
    sent = [one["choices"][0] for one in found]
    for choice in whole:
        *pieces, end = [one for one in sent if one["index"] == choice["index"]]
        assert "".join(piece["text"] for piece in pieces) == choice["text"]
        assert end["finish_reason"] == choice["finish_reason"]
    assert stops or len(sent) > 2 * len(whole)  # more than a piece of each


def test_what_is_wrong_with_a_stream_is_said_before_it_begins(client):
    refused = {"prompt": "a" * 1020, "max_tokens": 9, "stream": True}
    assert client.post("/v1/completions", json=refused).status_code == 400


def test_what_is_served_is_listed(client):
    ids = [one["id"] for one in client.get("/v1/models").json()["data"]]
    assert ids == ["mine", "mine:colour", "mine:animal"]
    health = client.get("/health").json()
    assert (health["status"], health["stages"], health["waiting"]) == ("ok", 2, 0)
    assert "POST /predict" in client.get("/").json()["addresses"]


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("predict", {"text": "a", "task": "colr"}, 404, "did you mean 'colour'"),
        ("predict", {"text": "a"}, 400, "which task? name one of colour, animal"),
        ("predict", {}, 400, "give text or texts"),
        ("predict", {"texts": [], "task": "colour"}, 400, "no texts"),
        ("predict", {"texts": ["a", " "], "task": "colour"}, 400, "row 2: 'text' is empty"),
        ("predict", {"texts": ["a"] * 9, "task": "colour"}, 413, "at most 8 at a time"),
        ("predict", {"text": "a" * 2000, "task": "colour"}, 413, "2000 bytes"),
        ("predict", {"text": 3}, 400, "text"),
        ("predict", {"text": "a", "tsk": "colour"}, 400, "unknown key 'tsk'; did you mean 'task'"),
        ("v1/chat/completions", {"model": "gpt-4", "messages": [{}]}, 404, "known are: mine"),
        ("v1/chat/completions", {"messages": []}, 400, "messages: "),
        ("v1/chat/completions", {"messages": [{"role": "user"}]}, 400, "turn 1 (user) is empty"),
        ("v1/chat/completions", {"messages": [{}], "n": 2}, 400, "n: Input should be 1"),
        ("v1/completions", {"prompt": "a", "max_tokens": 17}, 400, "at most 16"),
        ("v1/completions", {"prompt": "a", "model": "mine:fruit"}, 404, "'mine:fruit'"),
        ("v1/completions", {"prompt": "a" * 1020, "max_tokens": 9}, 400, "at most 1024 in all"),
        ("v1/chat/completions", {"messages": [{}], "tools": [{}]}, 400, "tools: "),
        ("predict", {"text": "a", "task": "\ud800"}, 404, r"unknown task '\ud800'"),
        ("predict", {"text": [{"content": DEEP}], "task": "colour"}, 400, "nested too deeply"),
        ("predict", ["a"], 400, "send a JSON object"),
        ("nothing", {}, 404, "Not Found"),
    ],
)
def test_what_is_wrong_with_a_request_is_said_in_one_line(client, path, body, status, said):
    told = {"content-type": "application/json"}
    found = client.post(f"/{path}", content=json.dumps(body), headers=told)
    error = found.json()["error"]
    assert (found.status_code, error["code"]) == (status, status), error
    assert said in error["message"]
    assert "\n" not in error["message"]


def test_a_body_that_is_no_json_is_told_so(client):
    told = {"content-type": "application/json"}
    found = client.post("/predict", content="x", headers=told)
    assert (found.status_code, found.json()["error"]["message"]) == (400, "the body is not JSON")


def test_turns_that_a_task_never_saw_and_other_hosts_are_refused(client):
    turns = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "xxx"}]
    asked = {"model": "mine:colour", "messages": turns}
    said = client.post("/v1/chat/completions", json=asked).json()["error"]["message"]
    assert "'colour' was learned from single texts" in said
    assert client.get("/health", headers={"host": "elsewhere.example"}).status_code == 400
    plain = client.post(
        "/predict", content=b'{"text": "a"}', headers={"content-type": "text/plain"}
    )
    assert plain.status_code == 400  # what a page of another site could send
    assert "Content-Type: application/json" in plain.json()["error"]["message"]
    assert client.get("/predict").status_code == 405
    told_no_length = client.post("/predict", content=iter([b"a" * 1500] * 2))
    assert told_no_length.status_code == 413


def test_a_full_queue_and_a_bug_are_errors_of_the_server(model):
    served = Served(model, "mine", NoProgress())
    served.work = lambda job, items: items[9]
    app = application(served, Limits(waiting=2))
    with TestClient(app, base_url=HERE, raise_server_exceptions=False) as client:
        full = client.post("/predict", json={"texts": TEXTS, "task": "colour"})
        bug = client.post("/predict", json={"text": "a", "task": "colour"})
    assert (full.status_code, full.headers["retry-after"]) == (503, "1")
    assert (bug.status_code, bug.json()["error"]["type"]) == (500, "server_error")
