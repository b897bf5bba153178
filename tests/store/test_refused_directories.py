"""A directory that was damaged, changed or is something else is refused in one line."""

import pytest

from nlora.errors import NloraError
from nlora.store.directory import ModelDirectory, StageRecord
from nlora.store.manifests import Manifest
from tests.store.made import commit


def one_line(error):
    return "\n" not in str(error.value)


def test_a_damaged_stage_of_another_directory_is_not_copied(directory, tmp_path):
    record = directory.stages()[0]
    (directory.stage_path(record) / "test.jsonl").write_text("easier")
    other = ModelDirectory(tmp_path / "other")
    with other.locked(), pytest.raises(NloraError, match=r"test\.jsonl was changed"):
        other.adopt(directory, record)
    assert other.stages() == []


def test_a_folder_that_holds_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "photo.jpg").write_text("mine")
    with pytest.raises(NloraError, match="not a model directory"):
        ModelDirectory(tmp_path).exists()
    with pytest.raises(NloraError), ModelDirectory(tmp_path).locked():
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["photo.jpg"]


def test_stages_without_a_model_json_are_refused(tmp_path):
    (tmp_path / "stages").mkdir()
    with pytest.raises(NloraError, match=r"no model\.json"):
        ModelDirectory(tmp_path).exists()
    with pytest.raises(NloraError, match=r"lost its model\.json.*from a copy$"):
        ModelDirectory(tmp_path).check_there()


@pytest.mark.parametrize("content", ["{", '{"name": "another program"}', "[]", b"\xff\xfe"])
def test_a_model_json_that_is_malformed_or_foreign_is_named_in_one_line(tmp_path, content):
    path = tmp_path / "model.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "stages" / ".001-mine").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with (
        pytest.raises(NloraError, match=r"model\.json") as error,
        ModelDirectory(tmp_path).locked(),
    ):
        pass
    assert one_line(error)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(NloraError, match="is a file") as error, ModelDirectory(path).locked():
            pass
        assert one_line(error)
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with pytest.raises(NloraError, match="is a file; a model directory is needed"):
            ModelDirectory(tmp_path / name).exists()


@pytest.mark.parametrize("name", ["update/w.safetensors", "test.jsonl"])
def test_a_damaged_or_missing_file_is_named(directory, name):
    path = directory.path / "stages" / "001-first" / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"!")
    with pytest.raises(NloraError, match=f"{name} was changed or damaged") as error:
        directory.update_paths()
    assert one_line(error)
    path.unlink()
    with pytest.raises(NloraError, match=f"{name} is missing"):
        directory.update_paths()


def test_test_examples_that_were_changed_are_not_measured_on(directory):
    path = directory.path / "stages" / "001-first" / "test.jsonl"
    path.write_text('{"task": "first", "text": "easier", "label": "x"}\n')
    with pytest.raises(NloraError, match=r"test\.jsonl was changed"):
        directory.tests()


@pytest.mark.parametrize("content", ["{", "[]", '{"index": "one"}'])
def test_a_malformed_stage_json_is_named(directory, content):
    path = directory.path / "stages" / "002-second" / "stage.json"
    path.write_text(content)
    with pytest.raises(NloraError, match=r"002-second.stage\.json") as error:
        directory.stages()
    assert one_line(error)


def test_a_malformed_results_json_is_named(directory):
    (directory.path / "results.json").write_text("{")
    with pytest.raises(NloraError, match=r"results\.json is not valid JSON") as error:
        directory.results()
    assert one_line(error)


def test_a_manifest_never_leaves_the_directory(directory):
    with directory.locked():
        commit(directory, 3, "third", adds=["../.."])
    with pytest.raises(NloraError, match=r"must be .* and name committed stages") as error:
        directory.update_paths()
    assert one_line(error)


def test_a_missing_stage_is_noticed(directory):
    (directory.path / "stages" / "001-first").rename(directory.path / "moved")
    with pytest.raises(NloraError, match="stages are missing"):
        directory.stages()


def test_what_a_method_remembered_is_not_shown_once_it_was_changed(directory):
    def write(folder):
        (folder / "state").mkdir()
        (folder / "state" / "state.json").write_text('{"kept": [1]}')

    record = StageRecord(index=3, name="third", manifest=Manifest(on="002-second"))
    with directory.locked():
        directory.commit(record, write)
    assert directory.remembered(record) == {"kept": [1]}
    (directory.stage_path(record) / "state" / "state.json").write_text('{"kept": []}')
    with pytest.raises(NloraError, match=r"state\.json was changed"):
        directory.remembered(record)


def test_a_cell_that_is_named_as_its_ledger_does_is_found_by_its_folder(tmp_path):
    cell = tmp_path / "inc-lora,routing=input" / "seed-0"
    cell.mkdir(parents=True)
    (cell / "model.json").write_text("{}")
    named = ModelDirectory(tmp_path / "inc-lora:routing=input" / "seed-0")
    with pytest.raises(NloraError, match=f"holds no model .did you mean {cell}"):
        named.check_there("")
