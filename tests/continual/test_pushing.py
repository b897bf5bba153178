"""What is exported goes to a Hub only where that is asked for, without paths of the machine."""

import json
import re

import pytest

from nlora.continual.adapters_out import export_adapter
from nlora.continual.export import export
from nlora.continual.pushing import check_name, push
from nlora.errors import NloraError
from nlora.progress import NoProgress


@pytest.fixture
def hub(httpserver, monkeypatch):
    """A Hub that takes everything; `hub.files` is what it was given."""
    monkeypatch.setenv("HF_ENDPOINT", httpserver.url_for(""))
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    made = {"url": httpserver.url_for("/me/mine"), "name": "me/mine", "id": "me/mine"}
    httpserver.expect_request("/api/repos/create").respond_with_json(made)
    httpserver.expect_request("/api/validate-yaml").respond_with_json(
        {"errors": [], "warnings": []}
    )

    def modes(request):
        from werkzeug import Response

        files = [
            {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
            for f in request.get_json()["files"]
        ]
        return Response(json.dumps({"files": files}), content_type="application/json")

    httpserver.files = []

    def commit(request):
        from werkzeug import Response

        rows = [json.loads(line) for line in request.get_data().splitlines()]
        httpserver.files += [r["value"]["path"] for r in rows if r["key"] == "file"]
        told = {"commitUrl": made["url"], "commitOid": "0" * 40, "hookOutput": ""}
        return Response(json.dumps(told), content_type="application/json")

    anywhere = re.compile("/api/models/me/mine/preupload/.*")
    httpserver.expect_request(anywhere).respond_with_handler(modes)
    httpserver.expect_request(re.compile("/api/models/me/mine/commit/.*")).respond_with_handler(
        commit
    )
    return httpserver


def test_the_folder_is_uploaded_as_it_is(hub, finished, tmp_path):
    export_adapter(finished("inc-lora").out, tmp_path / "one")
    push(tmp_path / "one", "me/mine", NoProgress())
    assert sorted(hub.files) == sorted(p.name for p in (tmp_path / "one").iterdir())
    asked = json.loads(next(r for r, _ in hub.log if r.path == "/api/repos/create").get_data())
    assert asked["name"] == "mine"
    assert asked.get("private") or asked.get("visibility") == "private"


def test_no_path_of_the_machine_is_in_what_is_exported(finished, llama, tmp_path):
    export(finished("inc-lora").out, tmp_path / "plain")
    for path in (tmp_path / "plain").glob("*.[jm]*"):
        assert str(llama.parent) not in path.read_text(), path.name


def test_a_hub_that_refuses_is_one_line_and_the_folder_stays(httpserver, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", httpserver.url_for(""))
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    httpserver.expect_request("/api/repos/create").respond_with_data("no", status=403)
    (tmp_path / "one").mkdir()
    with pytest.raises(
        NloraError, match=r"one is written, and could not be pushed to me/mine: .*hf"
    ):
        push(tmp_path / "one", "me/mine", NoProgress())
    for name in ("mine", "me/..", "https://hub/me/mine"):
        with pytest.raises(NloraError, match=r"push takes OWNER/NAME"):
            check_name(name)
