"""Going on from an adapter that somebody trained with PEFT."""

import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from nlora.continual import stages
from nlora.continual.answering import predict
from nlora.continual.copying import copy
from nlora.continual.export import export
from nlora.continual.learning import learn, run
from nlora.continual.model import ContinualModel
from nlora.data.files import read_stream
from nlora.errors import NloraError
from nlora.plan.config import parse_config
from nlora.plan.given import known_task
from tests.published import published
from tests.runs import FAST, Listener, manifests, tree, write_stream, write_task


def asked(adapter, **values):
    settings = {**FAST, **values.pop("settings", {})}
    return parse_config({"from_adapter": str(adapter), "settings": settings, **values}, "test")


def known(tmp_path, name="colour"):
    """A YAML file of the task that the adapter is said to know."""
    entry = write_task(tmp_path, name)
    lines = f"name: {name}\ntest: {name}-test.jsonl\ninstruction: {entry['instruction']}\n"
    path = tmp_path / f"{name}.yaml"
    path.write_text(lines + f"labels: [{', '.join(entry['labels'])}]\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"layers.0.self_attn.q_proj": 6}, "alpha_pattern": {"v_proj": 3}},
        {"target_modules": "all-linear", "exclude_modules": ["down_proj"]},
        {"layers_to_transform": [1]},
        {"target_modules": r".*mlp\.(up|gate)_proj"},
    ],
    ids=["plain", "rslora", "patterns", "excluded", "one-layer", "expression"],
)
def test_the_first_stage_computes_what_peft_computes(llama_of_two, tmp_path, options):
    adapter = published(llama_of_two, tmp_path / "reviews", **options)
    animal = read_stream(write_stream(tmp_path, "animal"))[0]
    found = learn(tmp_path / "out", animal, asked(adapter, method="inc-lora"))
    assert found["stages"] == ["reviews", "animal"]
    ids = torch.arange(3, 60)[None]
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama_of_two), adapter)
    model = ContinualModel.open(tmp_path / "out")
    with model.after(1), torch.no_grad():
        ours = model.adapter.model.eval()(input_ids=ids).logits
    with torch.no_grad():
        expected = theirs.eval()(input_ids=ids).logits
        bare = AutoModelForCausalLM.from_pretrained(llama_of_two)(input_ids=ids).logits
    assert (expected - bare).abs().max() > 0.1
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_what_it_knows_is_measured_after_every_task(llama, tmp_path):
    adapter = published(llama, tmp_path / "reviews")
    animal, fruit = read_stream(write_stream(tmp_path, "animal", "fruit"))
    out = tmp_path / "out"
    first = learn(out, animal, asked(adapter, knows=str(known(tmp_path))))
    assert first["method"] == "n-lora"
    assert first["stages"] == first["tasks"] == ["colour", "animal"]
    shutil.rmtree(adapter)  # all that is needed is in the directory
    second = learn(out, fruit)
    assert second["stages"] == ["colour", "animal", "fruit"]
    column = [row[0] for row in second["accuracy_matrix"]]
    assert None not in column
    assert second["forgetting"] is not None
    record = json.loads((out / "stages/001-colour/stage.json").read_text())
    assert record["notes"]["from_adapter"]["base"] == str(llama)
    assert record["steps"] == 0
    assert (out / "stages/001-colour/update/adapter_model.safetensors").is_file()
    answers = predict(out, ["xxx 1"], "colour")
    assert answers[0].answer in ("a", "b", "c")
    export(out, tmp_path / "plain")
    AutoTokenizer.from_pretrained(tmp_path / "plain")
    export_of = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    ids = torch.arange(3, 40)[None]
    model = ContinualModel.open(out)
    with torch.no_grad():
        ours = model.adapter.model.eval()(input_ids=ids).logits
        torch.testing.assert_close(export_of(ids).logits, ours, rtol=1e-3, atol=1e-3)


def test_a_run_goes_on_from_it_and_after_a_stop(llama, tmp_path, monkeypatch):
    adapter = published(llama, tmp_path / "reviews")
    write_task(tmp_path, "colour")
    knows = f"colour={tmp_path / 'colour-test.jsonl'}"
    stream = write_stream(tmp_path, "animal", "fruit")
    config = asked(adapter, knows=knows, stream=str(stream), method="seq-lora")
    whole = run(config, tmp_path / "whole")
    assert whole["tasks"] == ["colour", "animal", "fruit"]
    with monkeypatch.context() as stopped:
        stopped.setattr(stages, "learn_stage", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(config, tmp_path / "out")
    assert len(list((tmp_path / "out/stages").iterdir())) == 1
    parts = run(config, tmp_path / "out")
    assert parts["accuracy_matrix"] == whole["accuracy_matrix"]
    assert manifests(tmp_path / "out")[2] == ["003-fruit"]  # seq-lora trains the adapter further


@pytest.mark.parametrize(
    ("labels", "taken"), [("", "free text"), (":auto", "3 labels"), (":a,b,c", "3 labels")]
)
def test_what_it_knows_has_labels_if_they_are_told_and_what_it_is_taken_for_is_said(
    tmp_path, labels, taken
):
    write_task(tmp_path, "colour")
    data = known_task(f"colour{labels}={tmp_path / 'colour-test.jsonl'}")
    assert (len(data.train), len(data.test)) == (0, 6)
    assert data.task.labels == (("a", "b", "c") if labels else None)
    [said] = data.notes
    assert "6 test rows" in said
    assert taken in said
    assert ("knows='colour:auto=FILE' makes the 3" in said) == (labels == "")


def test_a_yaml_file_of_what_it_knows_may_name_one_file_for_both(llama, tmp_path):
    path = known(tmp_path)
    path.write_text(path.read_text() + "train: colour-test.jsonl\n")
    data = known_task(str(path))
    assert (len(data.train), len(data.test)) == (0, 6)
    assert not any("same file" in note for note in data.notes)


def test_without_a_word_on_what_it_knows_metrics_are_of_the_new_tasks(llama, tmp_path):
    adapter = published(llama, tmp_path / "reviews")
    animal, fruit = read_stream(write_stream(tmp_path, "animal", "fruit"))
    learn(tmp_path / "out", animal, asked(adapter))
    found = learn(tmp_path / "out", fruit)
    assert found["tasks"] == ["animal", "fruit"]
    assert found["stages"] == ["reviews", "animal", "fruit"]
    assert found["accuracy_matrix"][0] == [None, None]
    assert found["average_accuracy"] is not None
    assert found["forgetting"] is not None


REFUSED = {
    "dora": ({"use_dora": True}, "DoRA"),
    "modules_to_save": ({"modules_to_save": ["lm_head"]}, "modules_to_save: "),
    "bias": ({"bias": "lora_only"}, "bias: lora_only"),
    "lora_bias": ({"lora_bias": True}, "lora_bias"),
    "pissa": ({"init_lora_weights": "pissa"}, "pissa.*convert"),
    "embedding": ({"target_modules": ["embed_tokens", "q_proj"]}, "embedding model.embed_tokens"),
    "tokens": ({"trainable_token_indices": [5]}, "embeddings of tokens"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_more_than_plain_lora_is_refused_with_its_reason(llama, tmp_path, kind):
    options, reason = REFUSED[kind]
    adapter = published(llama, tmp_path / "reviews", **options)
    animal = read_stream(write_stream(tmp_path, "animal"))[0]
    with pytest.raises(NloraError, match=reason) as error:
        learn(tmp_path / "out", animal, asked(adapter))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"method": "seq-ft"}, "trains 'full'"),
        ({"method": "replay", "settings": {"adapter": "lora"}}, "training examples"),
        ({"method": "ewc", "settings": {"adapter": "lora"}}, "training examples"),
        ({"method": "de-lora"}, "training examples.*routing=task"),
        ({"settings": {"rank": 2}}, "'rank' is 2, and that of .* is 4"),
        ({"knows": "nothing"}, "NAME=FILE"),
        ({"knows": "colour:=a.jsonl"}, "NAME=FILE"),
    ],
)
def test_what_cannot_go_on_from_it_is_refused_before_anything_is_written(
    llama, tmp_path, values, reason
):
    adapter = published(llama, tmp_path / "reviews")
    animal = read_stream(write_stream(tmp_path, "animal"))[0]
    with pytest.raises(NloraError, match=reason) as error:
        learn(tmp_path / "out", animal, asked(adapter, **values))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_another_base_model_is_refused_by_the_first_matrix_that_differs(llama, tmp_path):
    adapter = published(llama, tmp_path / "reviews")
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    save_file({**tensors, name: torch.ones(4, 48)}, path)
    animal = read_stream(write_stream(tmp_path, "animal"))[0]
    with pytest.raises(NloraError, match=r"q_proj is 32×48 in the adapter and 32×32") as error:
        learn(tmp_path / "out", animal, asked(adapter))
    assert "\n" not in str(error.value)


def test_a_directory_that_has_begun_takes_no_other_adapter(llama, tmp_path):
    adapter = published(llama, tmp_path / "reviews")
    animal, fruit = read_stream(write_stream(tmp_path, "animal", "fruit"))
    learn(tmp_path / "out", animal, asked(adapter))
    before = tree(tmp_path / "out")
    other = published(llama, tmp_path / "other", seed=2)
    with pytest.raises(NloraError, match="different configuration") as error:
        learn(tmp_path / "out", fruit, asked(other))
    assert "\n" not in str(error.value)
    assert tree(tmp_path / "out") == before
    assert learn(tmp_path / "out", fruit, asked(adapter))["stages"][-1] == "fruit"


def test_another_copy_of_its_base_is_told(llama, tmp_path):
    adapter = published(llama, tmp_path / "reviews")
    shutil.copytree(llama, tmp_path / "copy")
    animal = read_stream(write_stream(tmp_path, "animal"))[0]
    listener = Listener()
    learn(tmp_path / "out", animal, asked(adapter, model=str(tmp_path / "copy")), listener)
    assert any("taken for the same model" in text for text in listener.messages)


def test_what_it_knows_is_measured_also_where_tasks_are_told_apart(llama, tmp_path):
    adapter = published(llama, tmp_path / "reviews")
    [animal] = read_stream(write_stream(tmp_path, "animal"))
    own = asked(
        adapter, method="inc-lora", knows=str(known(tmp_path)), settings={"routing": "task"}
    )
    found = learn(tmp_path / "out", animal, own)
    assert [None not in row[: k + 1] for k, row in enumerate(found["accuracy_matrix"])] == [
        True
    ] * 2


def test_a_copy_of_what_was_begun_with_an_adapter_learns_on(llama, tmp_path):
    adapter = published(llama, tmp_path / "reviews")
    animal, fruit = read_stream(write_stream(tmp_path, "animal", "fruit"))
    learn(tmp_path / "out", animal, asked(adapter, knows=str(known(tmp_path))))
    copy(tmp_path / "out", tmp_path / "copy", model=str(llama))
    assert learn(tmp_path / "copy", fruit)["stages"] == ["colour", "animal", "fruit"]
