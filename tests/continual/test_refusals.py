"""What a run refuses, in one line, and what it leaves as it was."""

import json

import pytest

from nlora.continual.learning import run
from nlora.errors import NloraError
from nlora.plan.config import stored_config
from nlora.store.directory import ModelDirectory
from tests.runs import FAST, config, tree, write_stream


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"max_train": 23},
        {"max_eval": 5},
        {"evaluate": "seen"},
        {"method": "seq-lora"},
        {"settings": {"rank": 4}},
        {"settings": {"epochs": [8, 8, 7]}},
        {"settings": {"buffer": 0.2}},
        {"settings": {"prompt": "released"}},
    ],
    ids=str,
)
def test_another_configuration_is_refused_and_nothing_is_touched(done, change):
    settings = dict(done.config.settings)
    if "settings" in change:
        change = {"settings": {**settings, **change["settings"]}}
    if change.get("method"):
        settings.pop("adapter")
        change["settings"] = settings
    before = tree(done.out)
    with pytest.raises(NloraError, match="different configuration") as error:
        run(done.config.model_copy(update=change), done.out)
    assert "\n" not in str(error.value)
    assert tree(done.out) == before


@pytest.mark.parametrize(
    ("names", "advice"),
    [
        (("colour", "animal"), "choose another folder"),
        (("animal", "colour", "fruit"), "choose another folder"),
        (("colour", "animal", "fruit", "size"), "`nlora learn` adds a task to it"),
    ],
    ids=str,
)
def test_another_stream_is_refused(done, tmp_path, names, advice):
    stream = write_stream(tmp_path, *names, train=24)
    before = tree(done.out)
    with pytest.raises(NloraError, match=f"different configuration .*; {advice}"):
        run(done.config.model_copy(update={"stream": str(stream)}), done.out)
    assert tree(done.out) == before


@pytest.mark.parametrize("split", ["train", "test"])
def test_changed_data_of_a_learned_task_are_refused(done, tmp_path, split):
    stream = write_stream(tmp_path, train=24)
    with (tmp_path / f"animal-{split}.jsonl").open("a") as file:
        file.write('{"text": "one more", "label": "d"}\n')
    before = tree(done.out)
    with pytest.raises(NloraError, match="data of task 'animal'") as error:
        run(done.config.model_copy(update={"stream": str(stream)}), done.out)
    assert "\n" not in str(error.value)
    assert tree(done.out) == before


def test_the_same_data_in_another_place_are_no_other_configuration(done, tmp_path):
    stream = write_stream(tmp_path, train=24)
    assert run(done.config.model_copy(update={"stream": str(stream)}), done.out) == done.results


@pytest.mark.parametrize("values", [[1, 1], [1, 1, 1, 1], []], ids=str)
@pytest.mark.parametrize("name", ["learning_rate", "epochs", "l1"])
def test_a_list_of_another_length_is_refused_before_anything_is_done(llama, tmp_path, name, values):
    stream = write_stream(tmp_path)
    with pytest.raises(NloraError, match=f"'{name}' lists {len(values)} values") as error:
        run(config(llama, stream, {**FAST, name: values}, method="n-lora"), tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("setting", "near"),
    [
        ({"optimizer": "adamw"}, "did you mean"),
        ({"report_to": "tensorbord"}, "tensorboard"),
        ({"target_modules": ["no_such_layer"]}, "target_modules"),
        ({"max_length": 8}, "max_length"),
    ],
    ids=str,
)
def test_a_setting_that_the_libraries_refuse_is_one_line(llama, tmp_path, setting, near):
    stream = write_stream(tmp_path)
    with pytest.raises(NloraError, match=near) as error:
        run(config(llama, stream, {**FAST, **setting}), tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out" / "stages").exists()


PLUGIN = """
import torch
from nlora.methods.inc_lora import IncLora

class Breaks(IncLora):
    name = "breaks"
    summary = "its loss is not a number in stage 2"

    def loss(self, ctx, batch):
        terms = super().loss(ctx, batch)
        factor = torch.tensor(float("nan") if ctx.stage.index == 2 else 0.0)
        return {**terms, "extra": terms["task"] * factor}
"""


def test_a_loss_that_is_no_number_stops_the_run_and_earlier_stages_stand(llama, tmp_path):
    (tmp_path / "plugin.py").write_text(PLUGIN)
    stream = write_stream(tmp_path)
    asked = config(llama, stream, method="breaks", plugin=str(tmp_path / "plugin.py"))
    with pytest.raises(NloraError, match=r"'animal', step 1: .*nan.*earlier stages stand") as error:
        run(asked, tmp_path / "out")
    assert "\n" not in str(error.value)
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["stages"] == ["colour"]
    assert found["accuracy_matrix"][0][1:] == [None, None]
    assert [p.name for p in (tmp_path / "out" / "stages").iterdir()] == ["001-colour"]


def test_a_run_that_broke_in_its_first_stage_may_begin_anew_with_other_settings(llama, tmp_path):
    stream = write_stream(tmp_path, "colour")
    settings = {**FAST, "epochs": 2, "learning_rate": 1e30, "target_modules": "all-linear"}
    with pytest.raises(NloraError, match=r"'colour', step \d.*learning_rate"):
        run(config(llama, stream, settings), tmp_path / "out")
    found = run(config(llama, stream, {**settings, "learning_rate": 1e-3}), tmp_path / "out")
    assert found["stages"] == ["colour"]
    stored = json.loads((tmp_path / "out" / "model.json").read_text())
    assert stored["settings"]["learning_rate"] == 1e-3


EXPLODES = """
import torch
from nlora.methods.inc_lora import IncLora

class Explodes(IncLora):
    name = "explodes"
    summary = "its last step leaves no numbers"

    def after_step(self, ctx):
        if ctx.step.number == ctx.step.total - 1:
            with torch.no_grad():
                for parameter in ctx.adapter.trainable():
                    parameter.fill_(float("inf"))
"""


def test_a_last_step_that_leaves_no_numbers_is_not_committed(llama, tmp_path):
    (tmp_path / "plugin.py").write_text(EXPLODES)
    stream = write_stream(tmp_path, "colour")
    asked = config(llama, stream, method="explodes", plugin=str(tmp_path / "plugin.py"))
    with pytest.raises(NloraError, match=r"'colour', step 2: .*lora_\w.* not finite") as error:
        run(asked, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out" / "stages").exists()


def test_an_unknown_model_leaves_no_folder(tmp_path):
    stream = write_stream(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(NloraError, match=r"no config\.json"):
        run(config(tmp_path / "empty", stream), tmp_path / "out")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{}")
    with pytest.raises(NloraError, match="could not be loaded") as error:
        run(config(tmp_path / "broken", stream), tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_stream_is_needed(llama, tmp_path):
    with pytest.raises(NloraError, match="give stream;"):
        run(config(llama, None), tmp_path / "out")


def test_the_resolved_configuration_of_a_run_reproduces_it(done):

    stored = stored_config(ModelDirectory(done.out))
    assert run(stored, done.out) == done.results
