"""Stages are set aside and brought back as they were; what goes on meanwhile is not mixed up."""

import json
import shutil

import pytest

from nlora.continual.answering import predict
from nlora.continual.history import history
from nlora.continual.learning import learn, run
from nlora.continual.taking_back import bring_back, prune, rollback
from nlora.data.files import task_from_files
from nlora.errors import NloraError
from nlora.store.directory import ModelDirectory
from tests.runs import tree, write_task


@pytest.fixture
def model(finished, tmp_path):
    """A copy of a finished run over `colour` and `animal`."""
    return shutil.copytree(finished("inc-lora").out, tmp_path / "m")


def fruit(folder, name="fruit", start=0):
    entry = write_task(folder, name, start=start)
    files = [folder / entry[split] for split in ("train", "test")]
    return task_from_files(name, *files, labels=entry["labels"])


def names(model):
    return [record.name for record in ModelDirectory(model).stages()]


def test_what_is_taken_back_is_as_before_it_was_learned_and_can_be_brought_back(model, finished):
    whole = tree(model)
    found = rollback(model)
    assert (found.stages, found.last, found.name) == (["animal"], 1, "colour")
    assert found.place == model / "undone" / "001"
    results = json.loads((model / "results.json").read_text())
    assert results["stages"] == ["colour"]
    assert results["tasks"] == ["colour", "animal"]  # those of the run
    then = ModelDirectory(model).stages()[0].accuracy
    assert results["accuracy_matrix"] == [[then["colour"], then["animal"]]]
    with pytest.raises(NloraError, match="unknown task 'animal'"):
        predict(model, ["xxx 1"], task="animal")
    assert history(ModelDirectory(model))["undone"][0]["stages"] == ["002-animal"]
    assert bring_back(model).stages == ["animal"]
    assert tree(model) == whole


def test_a_run_goes_on_from_where_it_was_rolled_back_to(model, finished):
    stream = finished("inc-lora")
    recorded = ModelDirectory(model).stages()[1].accuracy
    rollback(model)
    run(stream.config, model)
    assert ModelDirectory(model).stages()[1].accuracy == recorded
    with pytest.raises(NloraError, match=r"built on another model.*--to 1.*--number 1"):
        bring_back(model)


def test_all_of_it_and_several_times(model):
    whole = tree(model)
    rollback(model, "1")
    rollback(model, "0")
    assert names(model) == []
    assert not rollback(model, "0").stages
    with pytest.raises(NloraError, match=r"bring back stage 1 first.*--undo --number 1"):
        bring_back(model, 1)
    with pytest.raises(NloraError, match="has no stage to take back"):
        rollback(model)
    assert bring_back(model).name == "colour"
    assert bring_back(model).name == "animal"
    assert tree(model) == whole
    with pytest.raises(NloraError, match="has no stages set aside"):
        bring_back(model)


def test_two_that_were_set_aside_are_told_apart(model, tmp_path):
    rollback(model, "colour")
    learn(model, fruit(tmp_path))
    assert names(model) == ["colour", "fruit"]
    rollback(model)
    assert bring_back(model).stages == ["fruit"]
    rollback(model)
    assert bring_back(model, 1).stages == ["animal"]
    assert names(model) == ["colour", "animal"]
    with pytest.raises(NloraError, match=r"has no rollback 7; there are 2 \(002-fruit\)"):
        bring_back(model, 7)


def test_the_base_model_of_another_run_is_not_what_stages_were_built_on(model, tmp_path):
    rollback(model, "0")
    directory = ModelDirectory(model)
    with directory.locked():
        directory.write_config(directory.config() | {"seed": 7})
    with pytest.raises(NloraError, match=r"built on another model than this is now$"):
        bring_back(model)


def test_what_was_begun_meanwhile_on_the_base_model_does_not_part_them_from_it(model):
    rollback(model, "0")
    directory = ModelDirectory(model)
    with directory.locked():  # as a first stage that was killed leaves it, of another version
        directory.write_config(directory.config() | {"tasks": ["b"], "versions": {"torch": "9"}})
    assert bring_back(model).stages == ["colour", "animal"]
    rollback(model, "0")
    with directory.locked():
        directory.write_config(directory.config() | {"max_train": 3})  # another run's
    with pytest.raises(NloraError, match="built on another model"):
        bring_back(model)


def test_pruned_stages_are_gone(model):
    rollback(model)
    size = sum(len(data) for data in tree(model / "undone").values())
    assert prune(model) == {"path": str(model), "removed": ["002-animal"], "bytes": size}
    assert not (model / "undone").exists()
    assert prune(model)["removed"] == []
    with pytest.raises(NloraError, match="has no stages set aside"):
        bring_back(model)


def test_one_process_at_a_time(model):
    for act in (rollback, bring_back, prune):
        with (
            ModelDirectory(model).locked(),
            pytest.raises(NloraError, match="in use by another process"),
        ):
            act(model)
