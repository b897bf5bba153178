"""Whatever happens while a model is fetched, the cache holds whole models or none."""

import dataclasses
import json
import os
import socket
import threading
import time

import huggingface_hub.constants as constants
import pytest
import torch

from nlora.backbones.catalog import find
from nlora.backbones.downloads import RECORD, Download, ensure, problem
from nlora.backbones.load import load
from nlora.data import hub
from nlora.errors import NloraError
from nlora.folders import cache_dir


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NLORA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Source:
    """A source that writes two small files, and counts how often."""

    def __init__(self):
        self.times = 0
        self.lines = []

    def write(self, folder, progress):
        self.times += 1
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"weights")

    def ensure(self, download):
        ensure(download, self.lines.append)


@pytest.fixture
def source():
    return Source()


@pytest.fixture
def download(source):
    return Download("hub", "tiny", "Tiny", "abc123", source.write)


def test_a_model_is_written_once_with_a_record_of_what_it_is(source, download, cache):
    source.ensure(download)
    source.ensure(download)
    assert source.times == 1
    assert download.path == cache / "tiny"
    record = json.loads((cache / "tiny" / RECORD).read_text())
    assert (record["title"], record["source"], record["revision"]) == ("Tiny", "hub", "abc123")
    assert set(record["versions"]) >= {"nlora", "transformers"}
    assert record["files"]["model.safetensors"] == {
        "size": 7,
        # printf weights | sha256sum
        "sha256": "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c",
    }


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_fetch_that_breaks_leaves_no_half_model(source, download, cache, error):
    def breaks(folder, progress):
        (folder / "config.json").write_text("{}")
        raise error

    with pytest.raises(error):
        source.ensure(dataclasses.replace(download, write=breaks))
    assert [p.name for p in cache.iterdir() if not p.name.endswith(".lock")] == []
    source.ensure(download)
    assert problem(download) is None


def test_what_a_killed_process_left_is_not_used(source, download, cache):
    (cache / ".tiny.partial").mkdir(parents=True)
    (cache / ".tiny.partial" / "model.safetensors").write_bytes(b"hal")
    (cache / ".tiny.partial" / "stray.json").write_text("{}")
    source.ensure(download)
    assert sorted(p.name for p in download.path.iterdir()) == [
        RECORD,
        "config.json",
        "model.safetensors",
    ]
    assert not (cache / ".tiny.partial").exists()


def missing(folder):
    (folder / "config.json").unlink()


def truncated(folder):
    (folder / "model.safetensors").write_bytes(b"weig")


def torn_record(folder):
    (folder / RECORD).write_text("{")


def strange_record(folder):
    (folder / RECORD).write_text('{"revision": "abc123", "files": []}')


def older_revision(folder):
    record = json.loads((folder / RECORD).read_text())
    (folder / RECORD).write_text(json.dumps(record | {"revision": "old"}))


@pytest.mark.parametrize(
    "damage", [missing, truncated, torn_record, strange_record, older_revision]
)
def test_a_damaged_model_is_fetched_again_and_says_why(source, download, damage):
    source.ensure(download)
    damage(download.path)
    wrong = problem(download)
    assert wrong
    source.ensure(download)
    assert source.times == 2
    assert any(wrong in line and "again" in line for line in source.lines)
    assert problem(download, hashes=True) is None


def test_a_damaged_model_stays_until_the_new_one_is_complete(source, download):
    def offline(folder, progress):
        raise NloraError("no network")

    source.ensure(download)
    truncated(download.path)
    with pytest.raises(NloraError, match="no network"):
        source.ensure(dataclasses.replace(download, write=offline))
    assert (download.path / "config.json").read_text() == "{}"


def test_changed_bytes_are_found_when_checksums_are_asked_for(source, download):
    source.ensure(download)
    (download.path / "model.safetensors").write_bytes(b"WEIGHTS")
    assert problem(download) is None
    assert "model.safetensors has changed" in problem(download, hashes=True)


def test_a_folder_that_nlora_did_not_write_is_left_alone(source, download, cache):
    (cache / "tiny").mkdir(parents=True)
    (cache / "tiny" / "mine.txt").write_text("precious")
    with pytest.raises(NloraError, match=r"in the way.*NLORA_CACHE"):
        source.ensure(download)
    assert (cache / "tiny" / "mine.txt").read_text() == "precious"
    assert source.times == 0


def test_two_at_once_write_it_once_and_one_says_that_it_waits(source, download):
    def slow(folder, progress):
        time.sleep(0.3)
        source.write(folder, progress)

    download = dataclasses.replace(download, write=slow)
    both = [threading.Thread(target=source.ensure, args=(download,)) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert source.times == 1
    assert sum("waiting" in line for line in source.lines) == 1
    assert problem(download) is None


def test_a_full_disk_is_one_clear_line(source, download, cache):
    def full(folder, progress):
        raise OSError(28, "No space left on device")

    with pytest.raises(NloraError, match=r"tiny could not be written: No space left.*NLORA_CACHE"):
        source.ensure(dataclasses.replace(download, write=full))
    assert not download.path.exists()


def test_a_cache_that_cannot_be_made_is_one_clear_line(source, download, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NLORA_CACHE", str(tmp_path / "file"))
    with pytest.raises(NloraError, match="could not be written"):
        source.ensure(download)


def test_a_whole_model_is_used_from_a_cache_that_is_read_only(source, download, cache, monkeypatch):
    source.ensure(download)
    before = sorted(cache.iterdir())

    def refuse(*args, **kwargs):
        raise PermissionError(13, "read-only")

    monkeypatch.setattr(os, "mkdir", refuse)
    monkeypatch.setattr("nlora.backbones.downloads.FileLock", refuse)
    source.ensure(download)
    assert sorted(cache.iterdir()) == before


def test_the_cache_is_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("NLORA_CACHE", "~/models")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "models"
    monkeypatch.delenv("NLORA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "nlora"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == tmp_path / ".cache" / "nlora"


@pytest.mark.parametrize("answers", [False, True], ids=["nobody", "silent"])
def test_a_hub_name_without_a_network_is_refused_soon(monkeypatch, answers):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if answers:
            listening.listen()  # takes connections, and says nothing
        endpoint = f"http://127.0.0.1:{listening.getsockname()[1]}"
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(hub, "HUB_SECONDS", 0.5)
        started = time.monotonic()
        with pytest.raises(NloraError, match="'somebody/none' could not be loaded") as error:
            load(find("somebody/none"), torch.float32)
        assert time.monotonic() - started < 5
        assert "\n" not in str(error.value)
