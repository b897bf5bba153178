"""`download` against a server on this machine, with small archives made up here."""

import errno
import gzip
import hashlib
import io
import json
import shutil
import socket
import tarfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from filelock import FileLock
from pytest_httpserver import HTTPServer
from werkzeug import Response

from nlora.data import download as module
from nlora.data.benchmark import DATASETS, load_task
from nlora.data.check import check
from nlora.data.download import COMMIT, LABELS, SOURCE, URL, download
from nlora.errors import NloraError

TOP = f"O-LoRA-{COMMIT}"
Member = tuple[tarfile.TarInfo, bytes]
Serve = Callable[..., str]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")


@pytest.fixture
def serve(httpserver: HTTPServer) -> Serve:
    """Serves these bytes; returns their address."""

    def respond(body: bytes, **options) -> str:
        httpserver.expect_request("/archive").respond_with_data(body, **options)
        return httpserver.url_for("/archive")

    return respond


def rows(name: str) -> list[dict[str, str]]:
    return [{"label": label, "sentence": f"About {label} in {name}."} for label in LABELS[name]]


def published(**changed: object) -> dict[str, object]:
    """The benchmark's files, tiny; a change is by path with `_` for `/`, None: it is missing."""
    files: dict[str, object] = {}
    for name, folder in DATASETS.items():
        files |= {f"{folder}/{split}.json": rows(name) for split in ("train", "dev", "test")}
        files[f"{folder}/labels.json"] = LABELS[name]
    return files | {f"{path.replace('__', '/')}.json": value for path, value in changed.items()}


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def archive(
    files: dict[str, object] | None = None,
    first: Iterable[Member] = (),
    last: Iterable[Member] = (),
    commit: str | None = COMMIT,
) -> bytes:
    own = [
        member(
            f"{TOP}/CL_Benchmark/{path}",
            value if isinstance(value, bytes) else json.dumps(value).encode(),
        )
        for path, value in (published() if files is None else files).items()
        if value is not None
    ]
    buffer = io.BytesIO()
    headers = {"comment": commit} if commit else None
    with tarfile.open(fileobj=buffer, mode="w:gz", pax_headers=headers) as tar:
        for info, content in (*first, *own, *last):
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def held(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}


def refused(folder: Path, url: str, match: str) -> None:
    """The error is one line that says `match`, and nothing is left."""
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(NloraError, match=match) as caught:
        download(folder, url)
    assert "\n" not in str(caught.value)
    assert sorted(folder.parent.rglob("*")) == before


def test_the_benchmark_can_be_read_after_one_call(serve: Serve, tmp_path: Path):
    folder = tmp_path / "new" / "benchmark"
    url = serve(archive())
    made, fresh = download(folder, url)
    assert fresh
    assert held(folder) == {*published(), SOURCE}
    assert [path.name for path in folder.parent.iterdir()] == ["benchmark"]
    assert check(folder).problems == ()
    assert len(check(folder).datasets) == 15
    assert load_task(folder, "cb").task.labels == ("entailment", "contradiction", "neutral")
    source = json.loads((folder / SOURCE).read_text())
    assert source == {"url": url, "commit": COMMIT, "dropped": {}, "files": made.files}
    for path in published():
        assert made.files[path] == hashlib.sha256((folder / path).read_bytes()).hexdigest()


def test_the_default_address_is_the_pinned_commit():
    assert f"https://codeload.github.com/cmnfriend/O-LoRA/tar.gz/{COMMIT}" == URL
    assert len(COMMIT) == 40


def test_every_data_set_has_its_published_labels():
    assert set(LABELS) == set(DATASETS)


def test_progress_tells_the_bytes_so_far_and_in_all(serve: Serve, tmp_path: Path):
    body = archive()
    told = []
    download(tmp_path / "data", serve(body), lambda done, total: told.append((done, total)))
    assert told[-1] == (len(body), len(body))


def test_a_file_address_serves_where_there_is_no_network(tmp_path: Path):
    (tmp_path / "archive.tar.gz").write_bytes(archive())
    _, fresh = download(tmp_path / "data", (tmp_path / "archive.tar.gz").as_uri())
    assert fresh


def test_an_empty_folder_is_used(serve: Serve, tmp_path: Path):
    (tmp_path / "data").mkdir()
    _, fresh = download(tmp_path / "data", serve(archive()))
    assert fresh


def test_hostile_and_other_members_are_never_written(serve: Serve, tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    folder = tmp_path / "in" / "data"
    amazon = f"{TOP}/CL_Benchmark/SC/amazon"
    first = [
        member(f"{TOP}/CL_Benchmark/SC", kind=tarfile.SYMTYPE, linkname=str(outside)),
        member(f"{TOP}/CL_Benchmark/TC", kind=tarfile.SYMTYPE, linkname="../../.."),
        member("/CL_Benchmark/SC/amazon/train.json", b"absolute"),
        member("../CL_Benchmark/SC/amazon/train.json", b"above"),
        member("./CL_Benchmark/SC/amazon/train.json", b"here"),
        member(f"{TOP}/../../evil.json", b"evil"),
        member(f"{TOP}/CL_Benchmark/../../../evil.json", b"evil"),
        member(str(outside / "evil.json"), b"evil"),
        member(f"{amazon}/train.json", kind=tarfile.LNKTYPE, linkname="/etc/passwd"),
        member(f"{amazon}/dev.json", kind=tarfile.FIFOTYPE),
        member(f"{amazon}/test.json", kind=tarfile.CHRTYPE, devmajor=1, devminor=3),
        member(f"{amazon}/test.json", kind=tarfile.BLKTYPE),
        member(f"{amazon}/test.json", kind=tarfile.DIRTYPE),
    ]
    last = [
        member(f"{amazon}/train.json", b"a second file of this name"),
        member(f"{amazon}/train.json/more.json", b"[]"),
        member(f"{amazon}/extra.json", b"[]"),
        member(f"{TOP}/CL_Benchmark/SC/amazon_2000/train.json", b"[]"),
        member(f"{TOP}/README.md", b"read me"),
        member(f"{TOP}/setup.py", b"import os", mode=0o4777),
    ]
    download(folder, serve(archive(first=first, last=last)))
    assert held(tmp_path) == {f"in/data/{path}" for path in (*published(), SOURCE)}
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))
    assert json.loads((folder / "SC/amazon/train.json").read_text()) == rows("amazon")


@pytest.mark.parametrize(
    ("bound", "value", "match"),
    [
        ("MAX_FILE", 100, "TC/dbpedia/train.json: .* bytes, more than 100"),
        ("MAX_UNPACKED", 20_000, "unpacks to more"),
        ("MAX_ARCHIVE", 500, "more than 500 bytes"),
        ("MAX_MEMBERS", 50, "more than 50 files"),
        ("_MAX_READ", 1000, "unpacks to more"),
    ],
)
def test_sizes_are_bounded(serve: Serve, tmp_path: Path, monkeypatch, bound, value, match):
    monkeypatch.setattr(module, bound, value)
    pax = tarfile.TarInfo(f"{TOP}/long")
    pax.pax_headers = {"note": "x" * 2000}
    refused(tmp_path / "data", serve(archive(last=[(pax, b"")])), match)


def test_a_sparse_file_cannot_fill_the_disk(serve: Serve, tmp_path: Path):
    name = f"{TOP}/CL_Benchmark/SC/amazon/train.json"
    hole, content = member(name, b"0\n".ljust(512, b"\0"))
    hole.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": name,
        "GNU.sparse.realsize": str(2**27),
    }
    body = archive(published(SC__amazon__train=None), last=[(hole, content)])
    refused(tmp_path / "data", serve(body), "has no CL_Benchmark/SC/amazon/train.json")


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (b"", "no tar.gz archive"),
        (b"<html>not found</html>", "no tar.gz archive"),
        (gzip.compress(b"no tar at all" * 500), "no tar.gz archive"),
        (archive()[:-600], "truncated"),
        (archive()[:-8] + b"12345678", "truncated, or no tar.gz archive .*CRC"),
        (archive(commit="0" * 40), f"is of commit {'0' * 40}, not {COMMIT}"),
        (archive(commit=None), "is of commit unknown"),
        (
            archive({}, last=[member(f"{TOP}/a")]),
            r"has no CL_Benchmark/TC/dbpedia/train.json \(45 files are missing\)",
        ),
        (archive(published(NLI__CB__test=None)), r"has no CL_Benchmark/NLI/CB/test.json \(1 "),
        (archive(published(WiC__WiC__labels=["False", "True"])), "WiC/labels.json: not the publ"),
        (archive(published(NLI__CB__test=b"version 1")), "benchmark: NLI/CB/test.json, line 1"),
        (archive(published(NLI__CB__test=[])), "benchmark: NLI/CB/test.json: no examples"),
    ],
    ids=[
        *("empty", "html", "no-tar", "cut", "bad-sum", "other-commit", "no-commit", "no-data"),
        *("no-file", "labels-in-other-order", "no-json", "no-rows"),
    ],
)
def test_what_is_not_the_published_archive_is_refused(serve: Serve, tmp_path, body, match):
    refused(tmp_path / "data", serve(body), match)


def test_rows_that_no_reader_could_use_are_dropped_and_recorded(serve: Serve, tmp_path: Path):
    folder = tmp_path / "data"
    bad = [
        {"label": "sports", "sentence": "A label in another case."},
        {"label": "Sports", "sentence": "  "},
        "no row",
    ]
    url = serve(archive(published(TC__agnews__test=[*bad[:2], *rows("agnews"), bad[2]])))
    made, _ = download(folder, url)
    assert made.dropped == {"TC/agnews/test.json": 3}
    assert json.loads((folder / SOURCE).read_text())["dropped"] == made.dropped
    assert json.loads((folder / "TC/agnews/test.json").read_text()) == rows("agnews")
    assert check(folder).problems == ()
    assert download(folder, url) == (made, False)


def test_published_files_stay_byte_for_byte(serve: Serve, tmp_path: Path):
    unusual = json.dumps([{"label": "-", "sentence": "No gold."}, *rows("mnli"), *rows("mnli")])
    body = unusual.replace("About", "\\u0041bout").encode()
    made, _ = download(tmp_path / "data", serve(archive(published(NLI__MNLI__dev=body))))
    assert (tmp_path / "data/NLI/MNLI/dev.json").read_bytes() == body
    assert made.dropped == {}


def test_a_data_set_may_come_without_dev(serve: Serve, tmp_path: Path):
    download(tmp_path / "data", serve(archive(published(SC__IMDB__dev=None))))
    assert load_task(tmp_path / "data", "imdb").dev == ()


def test_a_finished_download_is_kept_without_asking_the_server(
    serve: Serve, httpserver: HTTPServer, tmp_path: Path
):
    url = serve(archive())
    made, _ = download(tmp_path / "data", url)
    assert download(tmp_path / "data", url) == (made, False)
    assert len(httpserver.log) == 1


def test_a_download_that_was_changed_is_refused(serve: Serve, tmp_path: Path):
    folder, url = tmp_path / "data", serve(archive())
    download(folder, url)
    (folder / "SC/amazon/test.json").write_text("[]")
    refused(folder, url, "amazon/test.json is not as it was downloaded")
    (folder / "SC/amazon/test.json").unlink()
    refused(folder, url, "amazon/test.json is not as it was downloaded")


def test_a_folder_with_something_else_is_refused(serve: Serve, tmp_path: Path):
    url = serve(archive())
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.txt").write_text("years of work")
    refused(tmp_path / "data", url, "is no finished download")
    for source in ("[]", "{}", '{"commit": 1', '{"a": 1}'):
        (tmp_path / "data" / SOURCE).write_text(source)
        refused(tmp_path / "data", url, "is no finished download")
    other = {"url": "", "commit": "f" * 40, "dropped": {}, "files": {}}
    (tmp_path / "data" / SOURCE).write_text(json.dumps(other))
    refused(tmp_path / "data", url, f"holds commit {'f' * 40}")
    (tmp_path / "file").write_text("a file")
    refused(tmp_path / "file", url, "is no finished download")


def test_what_an_interrupted_download_left_is_removed(serve: Serve, tmp_path: Path):
    left = tmp_path / ".data.download"
    (left / "data" / "SC" / "amazon").mkdir(parents=True)
    (left / "data" / "SC" / "amazon" / "train.json").write_text("[{")
    (left / "archive.tar.gz").write_bytes(b"half")
    download(tmp_path / "data", serve(archive()))
    assert held(tmp_path) == {f"data/{path}" for path in (*published(), SOURCE)}
    assert not left.exists()


def test_an_interruption_leaves_nothing(serve: Serve, tmp_path: Path):
    def interrupt(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(tmp_path / "data", serve(archive()), interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_second_download_into_the_folder_waits_for_nobody(serve: Serve, tmp_path: Path):
    work = tmp_path / ".data.download"
    work.mkdir()
    with FileLock(work / "lock"):
        refused(tmp_path / "data", serve(archive()), "another download into .* is under way")


@pytest.mark.parametrize(("status", "match"), [(404, "404"), (503, "503")])
def test_an_answer_other_than_the_archive_is_told(serve: Serve, tmp_path, status, match):
    refused(tmp_path / "data", serve(b"sorry", status=status), f"the server answered {match}")


def test_an_archive_that_breaks_off_is_told(httpserver: HTTPServer, tmp_path: Path):
    cut = Response(archive()[:900])
    cut.headers["Content-Length"] = "2000"
    httpserver.expect_request("/archive").respond_with_response(cut)
    match = "broke off after 900 of 2,000 bytes"
    refused(tmp_path / "data", httpserver.url_for("/archive"), match)


def test_no_network_is_told(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/archive"
    refused(tmp_path / "data", url, "cannot fetch http.*refused.*network")


@pytest.mark.parametrize("url", ["archive.tar.gz", "gopher://x/y", "http://127.0.0.1:x/", "http:"])
def test_a_bad_address_is_told(tmp_path: Path, url: str):
    refused(tmp_path / "data", url, "cannot fetch")


def test_a_server_that_falls_silent_is_given_up(httpserver: HTTPServer, tmp_path, monkeypatch):
    def silent(request):
        time.sleep(0.6)
        return Response(b"")

    monkeypatch.setattr(module, "_TIMEOUT", 0.2)
    httpserver.expect_request("/archive").respond_with_handler(silent)
    refused(tmp_path / "data", httpserver.url_for("/archive"), "cannot fetch .*timed out")


def test_a_full_disk_is_told(serve: Serve, tmp_path: Path, monkeypatch):
    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    match = f"cannot write {tmp_path}: No space left on device; free some space"
    refused(tmp_path / "data", serve(archive()), match)
