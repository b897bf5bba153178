"""Stages that come and go below a server: taken up, and no request is dropped meanwhile."""

import asyncio
import shutil

import httpx2
from fastapi.testclient import TestClient

import nlora
from nlora.adapters.base import Adapter
from nlora.adapters.lora import Lora
from nlora.continual.taking_back import rollback
from nlora.errors import NloraError
from nlora.progress import NoProgress
from nlora.serve.served import Served
from tests.runs import Listener
from tests.serve.test_app import HERE, TEXTS, app_of


def test_a_new_stage_is_taken_up_and_no_request_is_dropped(finished, tmp_path):
    out = shutil.copytree(finished("inc-lora").out, tmp_path / "out")
    rows = [("xxx 1", "b"), ("yyy 2", "a")] * 4
    fruit = nlora.Task("fruit", train=rows, test=rows[:2], labels=["a", "b"])

    async def whole():
        app = app_of(nlora.load(out), every=0.02)
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url=HERE) as client,
        ):

            async def ask(task, count=3):
                body = {"texts": TEXTS[:count], "task": task}
                return (await client.post("/predict", json=body)).status_code

            learning = asyncio.create_task(
                asyncio.to_thread(nlora.learn, out, fruit, max_forgetting=100)
            )
            seen = []
            while not learning.done():
                seen += await asyncio.gather(*(ask("colour", n) for n in (1, 2, 3)))
            await learning
            for _ in range(100):
                if await ask("fruit") == 200:
                    return seen, (await client.get("/health")).json()
                await asyncio.sleep(0.02)
        return seen, None

    seen, health = asyncio.run(whole())
    assert set(seen) == {200}
    assert (health["stages"], health["tasks"]) == (3, ["colour", "animal", "fruit"])


def test_every_task_is_answered_until_the_stages_after_a_rollback_are_taken_up(finished, tmp_path):
    out = shutil.copytree(finished("de-lora").out, tmp_path / "out")
    served = Served(nlora.load(out), "mine", NoProgress())

    def predicted():
        return [list(served.model.predict(TEXTS, task)) for task in (None, "colour", "animal")]

    before = predicted()
    rollback(out, "1")
    shutil.rmtree(out / "undone")
    assert predicted() == before
    served.reload()
    assert (served.trouble, served.tasks) == (None, ["colour"])
    assert [answer.task for answer in served.model.predict(TEXTS)] == ["colour"] * 3


def test_what_is_wrong_with_a_request_is_its_own_fault_after_a_rollback_too(finished, tmp_path):
    out = shutil.copytree(finished("de-lora").out, tmp_path / "out")
    with TestClient(app_of(nlora.load(out)), base_url=HERE) as client:
        rollback(out, "1")
        refused = client.post("/v1/completions", json={"prompt": "a" * 1020, "max_tokens": 9})
        answered = client.post("/predict", json={"text": TEXTS[0], "task": "animal"})
    assert (refused.status_code, answered.status_code) == (400, 200)


def test_what_is_not_held_and_gone_is_no_fault_of_the_request(finished, tmp_path, monkeypatch):
    out = shutil.copytree(finished("de-lora").out, tmp_path / "out")
    monkeypatch.setattr(Lora, "hold", Adapter.hold)  # as adapters do that train whole models
    with TestClient(app_of(nlora.load(out)), base_url=HERE) as client:
        (out / "stages").rename(tmp_path / "taken-back")
        found = client.post("/predict", json={"text": TEXTS[0], "task": "colour"})
        assert (found.status_code, found.headers["retry-after"]) == (503, "1")
        assert "the directory holds other stages now" in found.json()["error"]["message"]
        assert client.post("/predict", json={"text": " ", "task": "colour"}).status_code == 400
        (tmp_path / "taken-back").rename(out / "stages")
        again = client.post("/predict", json={"text": TEXTS[0], "task": "colour"})
        assert again.status_code == 200


def test_stages_that_cannot_be_read_leave_the_old_ones_in_place(finished, tmp_path):
    out = shutil.copytree(finished("inc-lora").out, tmp_path / "out")
    served = Served(nlora.load(out), "mine", NoProgress())
    before = list(served.model.predict(TEXTS, "animal"))
    record = out / "stages" / "002-animal" / "stage.json"
    whole = record.read_text()
    record.write_text(whole[:-9])
    served.reload()
    assert "stage.json" in served.trouble
    assert list(served.model.predict(TEXTS, "animal")) == before
    record.write_text(whole)
    served.reload()
    assert served.trouble is None
    rollback(out, "0")
    served.reload()
    assert "has learned no task yet" in served.trouble
    assert list(served.model.predict(TEXTS, "animal")) == before


def test_offsets_that_cannot_be_found_are_tried_again(finished, tmp_path):
    out = shutil.copytree(finished("inc-lora").out, tmp_path / "out")
    found = {}

    def correct(model, tasks):
        if found is None:
            raise NloraError("no offsets")
        return found

    said = Listener()
    served = Served(nlora.load(out), "mine", said, correct)
    rollback(out)
    found = None
    for _ in range(2):
        served.reload()
        assert served.trouble == "no offsets"
    assert [line for line in said.messages if "offsets" in line] == [
        "the new stages answer without offsets: no offsets"
    ]
    found = {"colour": "offsets"}
    served.reload()
    assert (served.trouble, served.corrections) == (None, found)
