"""Streams and the rows of their tasks: whatever is in a file, nothing but a NloraError."""

import gzip
import io
import json
from contextlib import suppress

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nlora.data.files import read_stream, task_from_files
from nlora.errors import NloraError
from tests.fuzz.edits import EACH, as_json, damaged, edited

ROWS = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(6)]
STREAM = [
    {"name": "a", "train": "a.jsonl", "test": "a.jsonl", "labels": ["a", "b"]},
    {
        **{"name": "b", "train": "b.csv", "labels": "auto", "hold_out": 0.5, "hold_out_seed": 1},
        **{"columns": {"text": "text"}, "encoding": "utf-8", "on_bad_row": "skip"},
        **{"instruction": "Which?", "metric": "f1", "label_names": ["x", "y"]},
    },
]
CHAT = [
    {"messages": [{"role": r, "content": f"c {i}"} for r in ("system", "user", "assistant")]}
    for i in range(4)
]


def parquet():
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    return sink.getvalue()


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def delimited(mark):
    return "\n".join(["text" + mark + "label", *(f"t {i}{mark}a" for i in range(5))]).encode()


KINDS = {
    "jsonl": lambda: lines(ROWS),
    "json": lambda: json.dumps(ROWS, indent=1).encode(),
    "chat": lambda: lines(CHAT),
    "csv": lambda: delimited(","),
    "tsv": lambda: delimited("\t"),
    "gz": lambda: gzip.compress(lines(ROWS), mtime=0),
    "parquet": parquet,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("data")
    (found / "a.jsonl").write_bytes(lines(ROWS))
    (found / "b.csv").write_bytes(delimited(","))
    return found


def read(folder, data):
    (folder / "stream.yaml").write_bytes(data)
    with suppress(NloraError):
        read_stream(folder / "stream.yaml")


@EACH
@given(edited(STREAM))
def test_streams_of_other_values(folder, stream):
    read(folder, as_json(stream))  # which is YAML, too


@EACH
@given(damaged(yaml.safe_dump(STREAM).encode()))
def test_damaged_streams(folder, data):
    read(folder, data)


@EACH
@given(st.sampled_from(list(KINDS)).flatmap(lambda kind: damaged(KINDS[kind]())))
def test_damaged_rows(folder, data):
    task(folder / "rows", data)


@EACH
@given(st.sampled_from((ROWS, CHAT)).flatmap(edited))
def test_rows_of_other_values(folder, rows):
    task(folder / "rows.json", as_json(rows))


def task(path, data):
    path.write_bytes(data)
    with suppress(NloraError):
        task_from_files("a", path, None)
