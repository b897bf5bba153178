"""Streams and rows that somebody made to do harm: one line with file and line, and soon."""

import socket
import time
from contextlib import suppress

import pytest

from nlora.data.files import read_stream
from nlora.data.streams import load_stream
from nlora.errors import NloraError

ENTRY = "- name: a\n  train: {train}\n  test: {train}\n"

STREAMS = {
    "a NUL in a path": (ENTRY.format(train='"a\\0b.csv"'), "line 2: 'train' cannot name a file"),
    "half a character in a path": (
        ENTRY.format(train='"a\\ud800.csv"'),
        "line 2: 'train' cannot name a file",
    ),
    "nested lists": ("[" * 50_000, "nested too deeply"),
    "nested mappings": ("- name: a\n  train: " + "{a: " * 5000, "nested too deeply"),
    "thousands of digits": (
        ENTRY.format(train="x.csv") + "  hold_out_seed: " + "1" * 5000,
        "line 1: 'hold_out_seed' must be a number, not '1111",
    ),
    "a share of thousands of digits": (
        ENTRY.format(train="x.csv") + "  hold_out: " + "1" * 5000,
        "hold_out is a share between 0 and 1",
    ),
    "a NUL in an encoding": (
        ENTRY.format(train="stream.yaml") + '  encoding: "\\0"\n',
        "Python knows no encoding '",
    ),
    "an encoding of no text": (
        ENTRY.format(train="stream.yaml") + "  encoding: hex\n",
        "cannot be read as hex: ",
    ),
    "an encoding that refuses all": (
        ENTRY.format(train="stream.yaml") + "  encoding: undefined\n",
        "cannot be read as undefined: ",
    ),
    "an anchor in itself": ("- &a\n  name: *a\n", "line 1: 'name' must be text"),
    "a name of thousands of letters": ("- name: " + "a" * 5000 + "\n  train: x\n", "line 1: "),
}


@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_is_refused_in_one_short_line(tmp_path, kind):
    text, said = STREAMS[kind]
    path = tmp_path / "stream.yaml"
    path.write_text(text)
    with pytest.raises(NloraError) as error:
        read_stream(path)
    assert said in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


LONG = {
    "csv": 'text,label\n"' + "word " * 1_000_000 + '",a\nx,b\n',
    "without quotes": "text,label\n" + "word " * 1_000_000 + ",a\nx,b\n",
    "quotes alone": 'text,label\n"' + '""' * 2_500_000 + '",a\nx,b\n',
    "a quote that never ends": 'text,label\n"' + "word " * 1_000_000,
    "no end of line": "x" * 5_000_000,
    "a million columns": "a,b" + ",c" * 1_000_000 + "\n1,2\n",
    "jsonl": '{"text": "' + "word " * 1_000_000 + '", "label": "a"}\n',
}


@pytest.mark.parametrize("kind", LONG)
def test_a_line_of_megabytes_is_read_or_refused_soon(tmp_path, kind):
    for name in ("a.csv", "stream.yaml"):
        (tmp_path / name).write_text(LONG[kind] if name == "a.csv" else ENTRY.format(train="a.csv"))
    started = time.process_time()
    with suppress(NloraError):
        load_stream(str(tmp_path / "stream.yaml"), None)
    assert time.process_time() - started < 3


def test_a_data_set_of_the_hub_without_a_network_is_refused_soon(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    from huggingface_hub import constants

    from nlora.data import tables

    tables._open.cache_clear()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stream.yaml").write_text("- name: a\n  train: hf://somebody/none\n")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        started = time.monotonic()
        with pytest.raises(NloraError, match="hf://somebody/none: cannot be read: "):
            load_stream(str(tmp_path / "stream.yaml"), None)
        assert time.monotonic() - started < 15
    assert constants.HF_HUB_OFFLINE is False
