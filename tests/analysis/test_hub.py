import time

import huggingface_hub.constants as constants
import pytest
from pytest_httpserver import HTTPServer

from nlora.analysis.adapters import read_adapters
from nlora.errors import NloraError

from .made import tensors, write

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def hub(httpserver: HTTPServer, monkeypatch, tmp_path):
    """A Hub on this machine, and an empty cache."""
    move(monkeypatch, httpserver.url_for("").rstrip("/"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return httpserver


def move(monkeypatch, endpoint):
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)


def publish(hub, name, folder, revision="main"):
    for path in folder.iterdir():
        data = path.read_bytes()
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{path.name}"'}
        for method in ("HEAD", "GET"):
            place = f"/{name}/resolve/{revision}/{path.name}"
            hub.expect_request(place, method=method).respond_with_data(data, headers=headers)


def test_an_adapter_comes_from_the_hub_by_two_files_and_then_from_the_cache(
    hub, monkeypatch, tmp_path
):
    publish(hub, "somebody/lora", write(tmp_path / "a"))
    adapter = read_adapters(["somebody/lora"])[0]
    assert adapter.name == "somebody/lora"
    paths = [request.path for request, _ in hub.log]
    asked = {path.rsplit("/", 1)[-1] for path in paths if "/resolve/" in path}
    assert asked == {"adapter_config.json", "adapter_model.safetensors"}
    move(monkeypatch, NOBODY)
    assert read_adapters(["somebody/lora"])[0].shapes == adapter.shapes


def test_an_adapter_comes_at_the_revision_that_is_asked_for(hub, tmp_path):
    publish(hub, "somebody/lora", write(tmp_path / "a"))
    publish(hub, "somebody/lora", write(tmp_path / "b", tensors(rank=3), r=3), "v1")
    pinned = read_adapters(["somebody/lora@v1"])[0]
    assert (pinned.name, pinned.config.r) == ("somebody/lora@v1", 3)


def test_a_name_that_the_hub_does_not_know_is_one_line(hub):
    hub.expect_request("/somebody/nothing/resolve/main/adapter_config.json").respond_with_data(
        "", status=404, headers={"X-Error-Code": "RepoNotFound"}
    )
    with pytest.raises(NloraError, match="'somebody/nothing' is no folder here") as caught:
        read_adapters(["somebody/nothing"])
    assert "\n" not in str(caught.value)


def test_without_a_network_the_answer_comes_soon(hub, monkeypatch):
    move(monkeypatch, NOBODY)
    started = time.monotonic()
    with pytest.raises(NloraError, match="the Hub cannot be reached"):
        read_adapters(["somebody/lora"])
    assert time.monotonic() - started < 12
