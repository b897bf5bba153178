import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest

from nlora.continual.learning import learn, run
from nlora.data.files import read_stream, task_from_files
from nlora.errors import NloraError
from nlora.report.tables import tables
from nlora.store.directory import ModelDirectory
from nlora.study.rows import row
from tests.runs import FAST, Listener, config, read_jsonl, tree, write_stream, write_task


@pytest.fixture(scope="module")
def learned(llama, tmp_path_factory):
    """A run over two of three tasks whose original files are gone, and the third task's data."""
    folder = tmp_path_factory.mktemp("learned")
    tasks = read_stream(write_stream(folder))
    stream = write_stream(folder, "colour", "animal")
    run(config(llama, stream), folder / "out")
    for path in folder.glob("*.jsonl"):
        path.unlink()
    return SimpleNamespace(out=folder / "out", third=tasks[2], tasks=tasks)


@pytest.fixture
def out(learned, tmp_path):
    """A copy of the run's directory."""
    return shutil.copytree(learned.out, tmp_path / "out")


def updates(out):
    return {name: data for name, data in tree(out).items() if "/update/" in name}


def test_a_learned_task_is_a_stage_like_those_of_a_run(learned, llama, out, tmp_path):
    found = learn(out, learned.third)
    assert found["stages"] == ["colour", "animal", "fruit"]
    whole = run(config(llama, None), tmp_path / "whole", stream=learned.tasks)
    assert found["accuracy_matrix"] == whole["accuracy_matrix"]
    assert updates(out) == updates(tmp_path / "whole")


def test_every_earlier_task_is_tested_again_from_what_the_directory_kept(learned, out):
    found = learn(out, learned.third)
    assert None not in found["accuracy_matrix"][2]
    record = json.loads((out / "stages" / "003-fruit" / "stage.json").read_text())
    assert record["tested"] == {"colour": 6, "animal": 6, "fruit": 6}


def test_the_original_run_is_refused_afterwards(learned, llama, out, tmp_path):
    learn(out, learned.third)
    before = tree(out)
    for names in (("colour", "animal"), ("colour", "animal", "fruit")):
        stream = write_stream(tmp_path, *names)
        with pytest.raises(NloraError, match="different configuration") as error:
            run(config(llama, stream), out)
        assert "\n" not in str(error.value)
    assert tree(out) == before


def test_a_new_directory_goes_on_without_being_told_how(llama, tmp_path):
    out = tmp_path / "out"
    tasks = read_stream(write_stream(tmp_path))
    settings = {**FAST, "rank": 2}
    first = learn(out, tasks[0], config(llama, None, settings, method="seq-lora"))
    assert first["stages"] == ["colour"]
    second = learn(out, tasks[1])
    assert second["stages"] == ["colour", "animal"]
    assert second["method"] == "seq-lora"
    adapter = json.loads((out / "stages/002-animal/update/adapter_config.json").read_text())
    assert adapter["r"] == 2


def test_telling_it_again_is_allowed_and_something_else_is_refused(learned, llama, out):
    before = tree(out)
    for other in (config(llama, None, {**FAST, "rank": 2}), config(llama, None, method="ns")):
        with pytest.raises(NloraError, match="different configuration"):
            learn(out, learned.third, other)
    assert tree(out) == before
    assert learn(out, learned.third, config(llama, None))["stages"][2] == "fruit"


def test_a_new_directory_needs_a_configuration(learned, tmp_path):
    with pytest.raises(NloraError, match=r"needs model, or from_adapter"):
        learn(tmp_path / "new", learned.third)
    assert not (tmp_path / "new").exists()


def test_what_a_run_would_refuse_before_it_begins_a_first_task_is_refused_too(
    learned, llama, tmp_path
):
    settings = {**FAST, "adapter": "lora", "loss": "among-labels"}
    with pytest.raises(NloraError, match="among-labels means nothing"):
        learn(tmp_path / "m", learned.third, config(llama, None, settings, method="sdft"))
    assert not (tmp_path / "m").exists()


def test_the_same_task_twice_does_nothing(learned, out, monkeypatch):
    first = learn(out, learned.third)
    before, listener = tree(out), Listener()

    def fails(*args, **kwargs):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("nlora.backbones.load.load", fails)
    assert learn(out, learned.third, progress=listener) == first
    assert tree(out) == before
    assert "nothing to do" in listener.messages[-1]


def test_what_cannot_be_the_same_task_is_refused(learned, llama, out, tmp_path):
    known = write_task(tmp_path, "colour", start=50)
    files = (tmp_path / known["train"], tmp_path / known["test"])
    other = task_from_files("colour", *files, labels=known["labels"])
    measured = replace(other, task=replace(other.task, metric="contains"))
    chats = replace(other, task=replace(other.task, chat=True))
    folded = replace(other, task=replace(other.task, labels=("a", "A")))
    before = tree(out)
    for data, said in (
        (measured, "with metric None, not contains"),
        (chats, "from single texts and not chats; give it another name"),
        (folded, "labels 'a' and 'A' are the same without case"),
    ):
        with pytest.raises(NloraError, match=said) as error:
            learn(out, data)
        assert "\n" not in str(error.value)
    assert tree(out) == before

    free = task_from_files("fruit", *files)
    learn(tmp_path / "free", free, config(llama, None))
    with pytest.raises(NloraError, match="with free answers and not labels"):
        learn(tmp_path / "free", learned.third)


def test_a_damaged_directory_is_not_learned_from(learned, out):
    (out / "stages" / "001-colour" / "update" / "adapter_model.safetensors").write_bytes(b"x")
    before = tree(out)
    with pytest.raises(NloraError, match=r"001-colour.*changed or damaged"):
        learn(out, learned.third)
    assert tree(out) == before


def test_a_method_that_trains_all_tasks_together_cannot_learn_one_more(llama, tmp_path):
    tasks = read_stream(write_stream(tmp_path))
    asked = config(llama, None, method="mtl")
    run(asked, tmp_path / "out", stream=tasks[:2])
    before = tree(tmp_path / "out")
    with pytest.raises(NloraError, match="mtl trains all its tasks in one stage") as error:
        learn(tmp_path / "out", tasks[2])
    assert "\n" not in str(error.value)
    assert tree(tmp_path / "out") == before


def test_what_a_method_keeps_for_its_next_stage_is_there(llama, tmp_path):
    tasks = read_stream(write_stream(tmp_path))
    settings = {**FAST, "adapter": "lora", "buffer": 3}
    run(config(llama, None, settings, method="replay"), tmp_path / "out", stream=tasks[:2])
    learn(tmp_path / "out", tasks[2])
    record = json.loads((tmp_path / "out/stages/003-fruit/stage.json").read_text())
    assert record["examples"] == 12 + 2 * 3


def test_a_list_without_a_value_for_the_stage_ends_with_its_last_which_is_said(llama, tmp_path):
    tasks = read_stream(write_stream(tmp_path))
    out, listener = tmp_path / "out", Listener()
    settings = {**FAST, "learning_rate": [1e-3, 2e-3]}
    learn(out, tasks[0], config(llama, None, settings))  # more values than stages so far
    learn(out, tasks[1])
    learn(out, tasks[2], progress=listener)
    assert [record["budget"]["learning_rate"] for record in records(out)] == [1e-3, 2e-3, 2e-3]
    assert read_jsonl(out / "stages/003-fruit/losses.jsonl")[0]["learning_rate"] == 2e-3
    [said] = [line for line in listener.messages if "'learning_rate'" in line]
    assert "lists 2 values and this is stage 3: the last one, 0.002, counts" in said


def records(out):
    paths = sorted((out / "stages").glob("*/stage.json"))
    return [json.loads(path.read_text()) for path in paths]


def test_limits_are_those_of_a_stage_and_how_many_rows_are_used_is_said(llama, tmp_path):
    tasks = read_stream(write_stream(tmp_path))
    out, listener = tmp_path / "out", Listener()
    run(config(llama, None, max_train=9, max_eval=3), out, stream=tasks[:1])
    learn(out, tasks[1], progress=listener)
    assert "'animal': 12 of 12 training rows, 6 of 6 test rows are used" in listener.messages
    assert any("max_train=9 of the first stage is not inherited" in m for m in listener.messages)
    learn(out, tasks[2], config(llama, None, max_train=6, max_eval=2), listener)
    assert "'fruit': 6 of 12 training rows, 2 of 6 test rows are used" in listener.messages
    assert [record["examples"] for record in records(out)] == [9, 12, 6]
    assert records(out)[2]["tested"] == {"colour": 3, "animal": 6, "fruit": 2}
    assert records(out)[2]["budget"]["rows"] == {"fruit": {"train": [6, 12], "test": [2, 6]}}

    found = row(ModelDirectory(out), None)["configuration"]
    own = {"max_train": None, "max_eval": None}
    assert found["budgets"] == {"animal": own, "fruit": {"max_train": 6, "max_eval": 2}}
    ledger = tmp_path / "ledger.jsonl"
    ledger.write_text(json.dumps({**row(ModelDirectory(out), None)}))
    assert "but for animal, fruit, with budgets of their own" in tables([ledger])[0].title

    before = tree(out)
    for task in tasks:  # whatever each was limited to, it is known again
        learn(out, task, progress=listener)
        assert "nothing to do" in listener.messages[-1]
    with pytest.raises(NloraError, match="'fruit' was learned with max_train 6, not 7"):
        learn(out, tasks[2], config(llama, None, max_train=7))
    assert tree(out) == before


def test_epochs_learning_rate_and_weights_are_a_stages_own(llama, tmp_path):
    tasks = read_stream(write_stream(tmp_path))
    out = tmp_path / "out"
    first = {**FAST, "epochs": 2, "penalty": "l1", "l1": [0.1, 0.2], "l1_unit": "sum"}
    learn(out, tasks[0], config(llama, None, first))
    own = {"learning_rate": 5e-3, "batch_size": 6, "l1": 0.3}
    second = {**FAST, "penalty": "l1", "l1_unit": "sum", **own}
    learn(out, tasks[1], config(llama, None, second))
    learn(out, tasks[2])
    budgets = [record["budget"] for record in records(out)]
    assert [b["epochs"] for b in budgets] == [2, 2, 2]  # what is not told is the directory's
    assert [b["learning_rate"] for b in budgets] == [1e-3, 5e-3, 1e-3]
    assert [b["batch_size"] for b in budgets] == [8, 6, 8]
    assert [b["l1"] for b in budgets] == [0.1, 0.3, 0.2]
    assert [record["notes"]["l1"]["lambda"] for record in records(out)] == [0.1, 0.3, 0.2]
    with pytest.raises(NloraError, match=r"'animal' was learned with learning_rate 0.005, not 0.1"):
        learn(out, tasks[1], config(llama, None, {**second, "learning_rate": 0.1}))


def test_a_directory_goes_on_from_any_working_directory(llama, tmp_path, monkeypatch):
    tasks = read_stream(write_stream(tmp_path))
    shutil.copytree(llama, tmp_path / "model")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    learn(tmp_path / "out", tasks[0], config("model", None))
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert learn(tmp_path / "out", tasks[1])["stages"] == ["colour", "animal"]
