import io
import json
import os
import stat
from pathlib import Path

import pytest

from nlora.store.atomic import append_line, new_folder, write_json, write_text


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_text(path, "old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_a_file_that_cannot_be_begun_says_why(tmp_path, monkeypatch):
    def refused(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(PermissionError):  # and not that there is no draft to remove
        write_text(tmp_path / "a.json", "text")


def test_text_and_json_come_back_as_they_were(tmp_path):
    value = {"name": "Ünïcode \u2028", "rows": [1.5, None]}
    write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value
    write_text(tmp_path / "a.json", "shorter\n")
    assert (tmp_path / "a.json").read_bytes() == b"shorter\n"


def test_a_json_file_can_be_read_by_people(tmp_path):
    write_json(tmp_path / "a.json", {"größe": [1]})
    assert (tmp_path / "a.json").read_bytes() == '{\n "größe": [\n  1\n ]\n}\n'.encode()


def test_a_draft_that_a_killed_process_left_is_no_part_of_the_folder(tmp_path):
    (tmp_path / ".new").mkdir()
    (tmp_path / ".new" / "old.txt").write_text("old")
    with new_folder(tmp_path / "new", tmp_path / ".new") as draft:
        (draft / "new.txt").write_text("new")
    assert [p.name for p in tmp_path.rglob("*")] == ["new", "new.txt"]


def test_a_draft_that_cannot_be_removed_hides_no_error(tmp_path):
    def fail(draft):
        draft.rmdir()
        raise RuntimeError("no space")

    with (
        pytest.raises(RuntimeError, match="no space"),
        new_folder(tmp_path / "new", tmp_path / ".new") as draft,
    ):
        fail(draft)


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot open folders")
def test_a_folder_appears_once_all_of_it_would_survive_a_power_cut(tmp_path, monkeypatch):
    place, synced = tmp_path / "new", []
    fsync = os.fsync

    def noted(handle):
        synced.append((os.fstat(handle).st_ino, place.exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    with new_folder(place, tmp_path / ".new") as draft:
        (draft / "below").mkdir()
        (draft / "below" / "a.txt").write_text("text")
    before = {p.stat().st_ino for p in (place, *place.rglob("*"))}
    assert {number for number, appeared in synced if not appeared} == before
    assert [number for number, appeared in synced if appeared] == [tmp_path.stat().st_ino]


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_files_can_be_read_by_whom_the_umask_lets(tmp_path):
    before = os.umask(0o022)
    try:
        write_text(tmp_path / "a.txt", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o644


def test_a_line_that_the_disk_takes_in_pieces_is_whole(tmp_path, monkeypatch):
    class InPieces(io.FileIO):
        def write(self, data):
            return super().write(bytes(data[:3]))

    (path := tmp_path / "rows.jsonl").write_text("first\n")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, mode, buffering: InPieces(path, mode))
        append_line(path, "the second line")
    assert path.read_text() == "first\nthe second line\n"
