"""A ledger holds every row that was added, whoever adds them, and whenever one is killed."""

import errno
import os
import threading

import pytest

from nlora.report.ledger import lines, write


def added(path, *numbers):
    for number in numbers:
        write(path, {"cell": number})


def cells(path):
    return [row["cell"] for row in lines(path)]


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
