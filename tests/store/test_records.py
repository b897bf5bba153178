"""`stage.json`: whatever is wrong with it is one line with file and key, and never believed."""

import json

import pytest

from nlora.errors import NloraError
from nlora.store.directory import ModelDirectory, StageRecord
from nlora.store.manifests import Manifest
from nlora.store.records import read_record, seal

RECORD = ("stages", "002-b", "stage.json")


@pytest.fixture
def directory(tmp_path):
    made = ModelDirectory(tmp_path / "out")
    with made.locked():
        made.write_config({"model": "m"})
        for index, name, on in ((1, "a", None), (2, "b", "001-a")):
            manifest = Manifest(on=on, adds=[f"00{index}-{name}"])
            record = StageRecord(index=index, name=name, manifest=manifest, accuracy={"a": 12.5})
            record.tasks = [{"name": name, "labels": ["x", "y"]}]
            made.commit(record, lambda folder: (folder / "x").write_text("x"))
    return made


def change(directory, sealed=False, **values):
    """Edit the last record; a value of ... takes its key out."""
    path = directory.path.joinpath(*RECORD)
    record = {**json.loads(path.read_text()), **values}
    record = {name: value for name, value in record.items() if value is not ...}
    path.write_text(json.dumps({**record, "sha256": seal(record)} if sealed else record))


@pytest.mark.parametrize(
    "values",
    [
        {"manifest": {"adds": ["002-b"]}},
        {"manifest": {}},
        {"accuracy": {"a": 99.0}},
        {"sha256": ...},
    ],
    ids=str,
)
def test_a_record_that_was_changed_is_not_believed(directory, values):
    change(directory, **values)
    with pytest.raises(NloraError, match=r"002-b.stage\.json was changed or damaged"):
        directory.stages()


def test_a_record_is_read_once_and_again_when_its_file_has_changed(directory, monkeypatch):
    read = []

    def spy(path):
        read.append(path.parent.name)
        return read_record(path)

    monkeypatch.setattr("nlora.store.index.read_record", spy)
    directory.stages()[-1].name = "changed by who asked"
    assert [record.name for record in directory.stages()] == ["a", "b"]
    assert sorted(read) == ["001-a", "002-b"]
    change(directory, sealed=True, accuracy={"a": 99.0})
    assert directory.stages()[-1].accuracy == {"a": 99.0}
    assert len(read) == 3


def matched(task="a", scale=1.0, **offsets):
    return {"matched": {task: {"offsets": offsets, "scale": scale}}}


CANNOT_BE = {
    "no manifest": ({"manifest": ...}, "'manifest' is missing"),
    "no list of before": ({"format": 2}, "'updates': is missing"),
    "of a later version": ({"format": 4}, "of format 4, which a later version"),
    "no accuracy": ({"accuracy": ...}, "'accuracy' is missing"),
    "words": ({"accuracy": {"a": "good"}}, r"'accuracy\.a': .*number"),
    "nan": ({"accuracy": {"a": float("nan")}}, r"'accuracy\.a': .*finite"),
    "negative": ({"index": -1}, "'index': .*greater than or equal to 0"),
    "another number": ({"index": 3}, "record of stage 003-b, which is another one"),
    "another name": ({"name": "c"}, "record of stage 002-c"),
    "update outside": ({"manifest": {"adds": ["../.."]}}, "name committed stages"),
    "update twice": ({"manifest": {"adds": ["001-a", "001-a"]}}, "each once"),
    "update to come": ({"manifest": {"adds": ["003-c"]}}, "up to this one"),
    "without another": ({"manifest": {"on": "001-a", "without": ["003-c"]}}, "up to this one"),
    "on itself": ({"manifest": {"on": "002-b"}}, "on an earlier stage"),
    "on none": ({"manifest": {"on": "001-c"}}, "on an earlier stage"),
    "no list": ({"manifest": {"adds": "001-a"}}, r"'manifest\.adds': .*list"),
    "unknown": ({"manifest": {"but": []}}, r"'manifest\.but': "),
    "file above": ({"files": {"../x": "0"}}, r"'files' that names '\.\./x'"),
    "file outside": ({"files": {"/etc/passwd": "0"}}, "a path outside it"),
    "no task's name": ({"tasks": [{}]}, r"'tasks\.0\.name': is missing"),
    "labels of numbers": ({"tasks": [{"name": "b", "labels": [1]}]}, r"'tasks\.0\.labels\.0': "),
    "no labels": ({"tasks": [{"name": "b", "labels": []}]}, r"'tasks\.0\.labels': "),
    "more of a task": ({"tasks": [{"name": "b", "x": 1}]}, r"'tasks\.0\.x': "),
    "no task out": ({"notes": {"taken_out": "x"}}, r"'notes\.taken_out': "),
    "no stages out": ({"notes": {"taken_out": {"stages": "a"}}}, r"'notes\.taken_out\.stages': "),
    "no verdict": ({"notes": {"guard": {}}}, r"'notes\.guard\.falls': is missing"),
    "on top of a list": ({"notes": {"on_top_of": []}}, r"'notes\.on_top_of': "),
    "on top of none": ({"notes": {"on_top_of": "001-c"}}, "'001-c', which is no earlier stage"),
    "no rows": ({"budget": {"rows": 1}}, r"'budget\.rows': .*dictionary"),
    "rows of words": (
        {"budget": {"rows": {"b": {"train": ["x", 1], "test": [1, 1]}}}},
        r"'budget\.rows\.b\.train\.0': ",
    ),
    "limit of words": ({"budget": {"max_train": "x"}}, r"'budget\.max_train': "),
    "scale below 0": (matched(scale=-1e308), r"'matched\.a\.scale': .*greater than 0"),
    "scale beyond": (matched(scale=1e308), r"'matched\.a\.scale': "),
    "scale 0": (matched(scale=0), r"'matched\.a\.scale': .*greater than 0"),
    "endless offset": (matched(x=float("inf")), r"'matched\.a\.offsets\.x': "),
    "another label": (matched(z=1.0), r"'matched\.a' names 'z', which is no label of it"),
    "another task": (matched("c", x=1.0), "the task 'c', which is not learned"),
}


@pytest.mark.parametrize("kind", CANNOT_BE)
def test_what_cannot_be_is_refused_with_file_and_key_whatever_its_hash(directory, kind):
    values, said = CANNOT_BE[kind]
    change(directory, sealed=True, **values)
    with pytest.raises(NloraError, match=said) as error:
        directory.stages()
    assert "stage.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_offsets_of_labels_that_were_learned_are_read(directory):
    change(directory, sealed=True, **matched(scale=0.5, x=1.0, y=-1.0))
    assert directory.stages()[1].matched["a"].offsets == {"x": 1.0, "y": -1.0}


UNREADABLE = {"deep": "[" * 100_000, "digits": '{"index": ' + "1" * 5000 + "}"}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_json_that_cannot_be_read_is_named(directory, kind):
    text = UNREADABLE[kind]
    directory.path.joinpath(*RECORD).write_text(text)
    with pytest.raises(NloraError, match=r"stage\.json is not valid JSON"):
        directory.stages()


def test_a_record_of_before_there_were_hashes_is_read(directory):
    change(directory, format=1, sha256=..., manifest=..., updates=["001-a", "002-b"])
    assert directory.stages()[1].accuracy == {"a": 12.5}


def test_another_layout_of_the_same_values_is_the_same_record(directory):
    path = directory.path.joinpath(*RECORD)
    values = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(values.items())), indent=4))
    assert [record.name for record in directory.stages()] == ["a", "b"]
