"""A whole directory is found whole, and whatever is wrong with another is named."""

import json
import shutil

import pytest

from nlora.checksum import sha256
from nlora.continual.taking_back import rollback
from nlora.continual.verifying import verify
from nlora.errors import NloraError
from nlora.store.directory import ModelDirectory
from nlora.store.records import sealed
from tests.runs import tree


@pytest.fixture
def model(finished, tmp_path):
    return shutil.copytree(finished("inc-lora").out, tmp_path / "m")


def reseal(model, stage):
    """Let a stage's record be of its files as they are now."""
    directory = ModelDirectory(model)
    record = directory.stages()[stage - 1]
    folder = directory.stage_path(record)
    record.files = {name: sha256(folder / name) for name in record.files}
    (folder / "stage.json").write_text(sealed(record))


@pytest.mark.parametrize("kind", ["inc-lora", "seq-ft", "de-lora"])
def test_a_whole_directory_is_found_whole(kind, finished):
    out = finished(kind).out
    before = tree(out)
    found = verify(out, sample=4)
    assert found["stages"] == 2
    assert [(t["task"], t["asked"], t["same"]) for t in found["tasks"]] == [
        ("colour", 4, 4),
        ("animal", 4, 4),
    ]
    assert tree(out) == before


def test_all_files_that_are_wrong_are_named_before_anything_is_loaded(model, monkeypatch):
    rollback(model)
    monkeypatch.setattr("nlora.continual.verifying.stored_plan", lambda directory: 1 / 0)
    assert verify(model, sample=0)["stages"] == 1
    (model / "stages" / "001-colour" / "losses.jsonl").write_text("{}")
    (model / "stages" / "001-colour" / "more.txt").write_text("?")
    (model / "undone" / "001" / "002-animal" / "predictions.jsonl").unlink()
    results = json.loads((model / "results.json").read_text())
    (model / "results.json").write_text(json.dumps(results | {"average_accuracy": 12.5}))
    with pytest.raises(NloraError) as error:
        verify(model)
    assert [fault.split("/m/")[1].split(" ")[0] for fault in error.value.faults] == [
        "stages/001-colour/losses.jsonl",
        "stages/001-colour/more.txt",
        "undone/001/002-animal/predictions.jsonl",
        "results.json",
    ]


def test_a_stage_that_cannot_be_loaded_is_named(model):
    (model / "stages" / "001-colour" / "update" / "adapter_model.safetensors").write_bytes(b"x" * 9)
    reseal(model, 1)
    with pytest.raises(NloraError, match="stage 001-colour cannot be loaded"):
        verify(model)


def test_answers_that_turned_are_found(model):
    predictions = model / "stages" / "002-animal" / "predictions.jsonl"
    rows = [json.loads(line) for line in predictions.read_text().splitlines()]
    turned = [row | {"correct": not row["correct"]} for row in rows]
    predictions.write_text("".join(json.dumps(row) + "\n" for row in turned))
    reseal(model, 2)
    with pytest.raises(NloraError, match="colour: of 6 tests that were asked again 6 are right"):
        verify(model)
