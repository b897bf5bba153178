"""A ledger holds every row that was added, whoever adds them, and whenever one is killed."""

import errno
import os
import threading

import pytest

from nlora.errors import NloraError
from nlora.report.ledger import lines, read, write
from nlora.report.tables import tables
from tests.report.rows import failed, row


def added(path, *numbers):
    for number in numbers:
        write(path, {"cell": number})


def cells(path):
    return [found["cell"] for found in lines(path)]


def test_several_that_write_at_a_time_lose_no_row(tmp_path):
    path = tmp_path / "ledger.jsonl"
    writers = [
        threading.Thread(target=added, args=(path, *range(10 * k, 10 * k + 10))) for k in range(3)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(cells(path)) == list(range(30))
    assert os.listdir(tmp_path) == ["ledger.jsonl"]


def test_half_a_row_that_a_killed_process_left_is_no_row_and_goes_with_the_next(tmp_path):
    path = tmp_path / "ledger.jsonl"
    added(path, 1)
    with path.open("a") as file:
        file.write('{"cell": 2, "sec')
    assert cells(path) == [1]
    added(path, 3)
    assert path.read_text() == '{"cell": 1}\n{"cell": 3}\n'


def test_a_last_row_without_an_end_of_line_stays(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_text('{"cell": 1}')
    added(path, 2)
    assert cells(path) == [1, 2]


@pytest.mark.parametrize("new", [2, 1])  # appended, and in place of a row
def test_a_full_disk_leaves_the_rows_as_they_were_and_names_the_file(tmp_path, monkeypatch, new):
    path = tmp_path / "ledger.jsonl"
    added(path, 1)

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError) as error:
        write(path, {"cell": new, "again": True})
    assert error.value.filename == str(path)
    assert path.read_text() == '{"cell": 1}\n'
    assert os.listdir(tmp_path) == ["ledger.jsonl"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{\n", r"line 1 is not valid JSON"),
        (b"{", "no runs"),
        (b"\n[1]\n", "line 2 must hold a JSON object"),
        (b'{"value": 1}\n', r"line 1: not a row of a ledger"),
        (b"\xff\n", "not UTF-8"),
        (b"", "no runs"),
    ],
    ids=str,
)
def test_what_is_no_ledger_is_one_line(tmp_path, content, said):
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(content)
    with pytest.raises(NloraError, match=said) as error:
        tables([path])
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_row_is_added_once_and_takes_the_place_of_a_failure(tmp_path):
    path = tmp_path / "ledger.jsonl"
    odd = row("n-lora", notes={"a": "a\u2028b"})
    write(path, failed("inc-lora"))
    write(path, odd)
    write(path, row("inc-lora"))
    write(path, row("inc-lora"))
    assert read(path) == [odd, row("inc-lora")]
