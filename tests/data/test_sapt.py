"""The download of SAPT's tasks, from a server on this machine, with files of our own making."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

from nlora.data import sapt
from nlora.data.published import ORDERS
from nlora.data.sapt import COMMIT, download, git_tree
from nlora.data.streams import load_stream
from nlora.errors import NloraError

from .test_convert import folder, superni_files


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")


@pytest.fixture
def url(httpserver: HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an archive as GitHub makes one, its tree's hash that of the published."""
    monkeypatch.setattr(sapt, "TREE", git_tree(folder(tmp_path / "own", superni_files())))
    httpserver.expect_request("/archive").respond_with_data(archive(superni_files()))
    return httpserver.url_for("/archive")


def archive(files: dict[str, object], commit: str = COMMIT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", pax_headers={"comment": commit}) as tar:
        for name, value in files.items():
            content = json.dumps(value).encode()
            info = tarfile.TarInfo(f"SAPT-{commit}/CL_Benchmark/SuperNI/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_the_tasks_can_be_read_after_one_call(url: str, tmp_path: Path):
    data = tmp_path / "data"
    told = []
    made = download(data, url, lambda done, total: told.append(done == total))
    assert made.folder == data / "SuperNI"
    assert told[-1]
    assert tuple(t.name for t in load_stream("superni-15", data)) == ORDERS["superni-15"]
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(NloraError, match="exists already"):
        download(data, url)


@pytest.mark.parametrize("wrong", ["changed", "commit", "missing", "broken"])
def test_another_archive_is_refused_and_leaves_nothing(url, httpserver, tmp_path, wrong):
    files = superni_files()
    name = next(iter(files))
    if wrong == "changed":
        files[name] = {"Definition": "Another.", "Instances": []}
    if wrong == "missing":
        del files[name]
    body = archive(files, "0" * 40 if wrong == "commit" else COMMIT)
    body = body[:-200] if wrong == "broken" else body
    httpserver.expect_request("/wrong").respond_with_data(body)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(NloraError) as caught:
        download(tmp_path / "data", httpserver.url_for("/wrong"))
    told = {
        "changed": "not the published one",
        "commit": f"is of commit {'0' * 40}",
        "missing": "has no CL_Benchmark/SuperNI",
        "broken": "truncated",
    }
    assert told[wrong] in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_hash_of_a_folder_is_that_of_git(tmp_path: Path):
    for name, text in (("a.b", "x"), ("a/c", "y"), ("a/d.json", "")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    # `git write-tree` of these three files.
    assert git_tree(tmp_path) == "523a73fe88573bb1eb30bee8ebd1ccf96fe5d4b9"


def test_the_default_address_is_the_pinned_commit():
    assert f"https://codeload.github.com/circle-hit/SAPT/tar.gz/{COMMIT}" == sapt.URL
    assert len(COMMIT) == len(sapt.TREE) == 40
