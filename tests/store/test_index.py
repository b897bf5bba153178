"""One file with the records of many stages: as fast as it may be, and never believed over them."""

import json

import pytest

from nlora.errors import NloraError
from nlora.store import index
from nlora.store.directory import ModelDirectory, StageRecord
from nlora.store.manifests import Manifest
from nlora.store.records import read_record, seal


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """Eight stages with an index."""
    monkeypatch.setattr(index, "MANY", 4)
    monkeypatch.setattr(index, "MISSED", 8)
    made = ModelDirectory(tmp_path / "out")
    with made.locked():
        made.write_config({"model": "m"})
        for i in range(1, 9):
            commit(made, i)
        made.stages()
    assert (made.folder / "index.json").is_file()
    return made


def commit(directory, i):
    manifest = Manifest(on=f"{i - 1:03d}-t" if i > 1 else None, adds=[f"{i:03d}-t"])
    record = StageRecord(index=i, name="t", manifest=manifest, accuracy={"t": float(i)})
    record.notes["not a number"] = float("inf")
    directory.commit(record, lambda folder: (folder / "x").write_text("x"))


@pytest.fixture
def read(monkeypatch):
    """The folders of the records that are read from their own files."""
    names = []

    def spy(path):
        names.append(path.parent.name)
        return read_record(path)

    monkeypatch.setattr(index, "read_record", spy)
    return names


def change(path, **values):
    record = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({**record, "sha256": seal(record)}))


def test_records_come_from_the_index_as_they_come_from_their_files(directory, read):
    found = ModelDirectory(directory.path).stages()
    assert read == []
    (directory.folder / "index.json").unlink()
    assert ModelDirectory(directory.path).stages() == found
    assert len(read) == 8


def test_a_record_that_was_written_since_is_read_from_its_file(directory, read):
    change(directory.folder / "007-t" / "stage.json", accuracy={"t": 99.0})
    assert ModelDirectory(directory.path).stages()[6].accuracy == {"t": 99.0}
    assert read == ["007-t"]
    (directory.folder / "007-t" / "stage.json").write_text("{}")
    with pytest.raises(NloraError, match=r"007-t.stage\.json: 'index' is missing"):
        ModelDirectory(directory.path).stages()


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\n{}", b"00\n{}"])
def test_a_damaged_index_is_as_none(directory, read, content):
    (directory.folder / "index.json").write_bytes(content)
    assert len(ModelDirectory(directory.path).stages()) == len(read) == 8


def test_an_index_that_has_a_stage_under_the_name_of_another_is_as_none(directory, read):
    path = directory.folder / "index.json"
    values = json.loads(path.read_bytes().partition(b"\n")[2])
    values["003-t"], values["004-t"] = values["004-t"], values["003-t"]
    content = json.dumps(values).encode()
    path.write_bytes(index._sum(content) + b"\n" + content)
    assert [r.index for r in ModelDirectory(directory.path).stages()] == list(range(1, 9))
    assert len(read) == 8


def test_an_edited_index_is_as_none(directory, read):
    path = directory.folder / "index.json"
    path.write_bytes(path.read_bytes().replace(b'"t": 7.0', b'"t": 8.0'))
    assert ModelDirectory(directory.path).stages()[6].accuracy == {"t": 7.0}
    assert len(read) == 8


def test_what_was_forgotten_is_read_whatever_the_index_says(directory, read):
    """As `verify` does, which is to notice what changed without a trace."""
    found = ModelDirectory(directory.path)
    found.index.forget()
    assert len(found.stages()) == len(read) == 8


def test_it_is_written_anew_once_enough_stages_are_not_in_it(directory, read):
    path = directory.folder / "index.json"
    before = path.read_bytes()
    for i in (9, 10):
        with directory.locked():
            commit(directory, i)
            assert directory.stages()[-1].index == i
        assert (path.read_bytes() == before) == (i == 9)
    read.clear()
    assert [r.index for r in ModelDirectory(directory.path).stages()] == list(range(1, 11))
    assert read == []


def test_stages_that_were_taken_back_are_not_in_it(directory):
    with directory.locked():
        names = [f"{i:03d}-t" for i in range(5, 9)]
        directory.undone.take_back(names, {}, "", {})
    assert len(ModelDirectory(directory.path).stages()) == 4


def test_a_directory_of_few_stages_has_none(tmp_path):
    made = ModelDirectory(tmp_path / "out")
    with made.locked():
        made.write_config({"model": "m"})
        commit(made, 1)
        made.stages()
    assert [p.name for p in made.folder.iterdir()] == ["001-t"]
