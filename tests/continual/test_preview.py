import math
import shutil

import pytest
import yaml

from nlora.continual.learning import run
from nlora.continual.preview import preview
from nlora.plan.resolve import resolve
from tests.methods.helpers import stages
from tests.runs import FAST, Listener, config, read_jsonl, write_stream, write_task


def look(model, stream, settings=FAST, **values):
    return preview(resolve(config(model, stream, settings, **values)))


@pytest.fixture
def stream(tmp_path):
    return write_stream(tmp_path)


@pytest.mark.parametrize("method", ["inc-lora", "replay", "prog-prompt"])
@pytest.mark.parametrize("shape", ["llama_of_two", "t5_of_two"])
def test_no_weights_are_read_and_parameters_are_counted(request, tmp_path, stream, shape, method):
    model = shutil.copytree(request.getfixturevalue(shape), tmp_path / "model")
    (model / "model.safetensors").unlink()
    found = look(model, stream, method=method)
    width, layers = 32, 2
    expected = {
        # q and v of every attention; T5 has two more in each layer of its decoder
        "inc-lora": (layers if "llama" in shape else 3 * layers) * 2 * 2 * 8 * width,
        "replay": found.all_parameters,
        "prog-prompt": 10 * width,
    }
    assert found.trainable_parameters == expected[method]
    assert found.all_parameters > 20_000


def test_tasks_and_steps_are_those_of_the_run(llama, tmp_path, stream):
    settings = {**FAST, "epochs": [1, 2, 3]}
    found = look(llama, stream, settings, max_eval=4)
    assert [(t.name, t.train, t.test, t.labels) for t in found.tasks] == [
        (name, 12, 4, 3) for name in ("colour", "animal", "fruit")
    ]
    run(config(llama, stream, settings, max_eval=4), tmp_path / "out")
    trained = [
        (folder.name[4:], len(read_jsonl(folder / "losses.jsonl")))
        for folder in sorted((tmp_path / "out" / "stages").iterdir())
    ]
    assert found.stages == trained == [("colour", 2), ("animal", 4), ("fruit", 6)]


def test_a_prompt_of_every_task_is_shown_with_the_tokens_that_count(llama, t5, stream):
    for model in (llama, t5):
        first, *others = look(model, stream).examples
        assert [e.task for e in (first, *others)] == ["colour", "animal", "fruit"]
        assert first.prompt.startswith("Which colour?\nOption: a, b, c \nxxx 0\nAnswer:")
        assert "".join(first.answer_tokens).strip() == "a</s>"


def test_a_stream_of_one_task_shows_two_of_its_examples(llama, tmp_path):
    stream = write_stream(tmp_path, "colour", labels=False)
    found = look(llama, stream)
    assert [e.prompt for e in found.examples] == ["xxx 0\nAnswer:", "yyy 1\nAnswer:"]
    assert found.tasks[0].labels is None


def test_of_a_task_that_is_only_tested_a_prompt_is_shown_and_nothing_counts(llama, tmp_path):
    entries = [write_task(tmp_path, name) for name in ("colour", "fruit")]
    del entries[1]["train"]
    (tmp_path / "stream.yaml").write_text(yaml.safe_dump(entries))
    found = look(llama, tmp_path / "stream.yaml")
    assert [t.name for t in found.tasks] == ["colour", "fruit"]
    colour, fruit = found.examples
    assert colour.answer_tokens
    assert fruit.answer_tokens == []
    assert fruit.spans == [(fruit.prompt, False)]
    assert "Which fruit?" in fruit.prompt


def test_the_share_of_cut_texts_is_shown(llama, stream):
    # texts are "xxx 0" to "zzz 11": byte tokens, 5 for the first ten, 6 for the others
    assert look(llama, stream).tasks[0].truncated == 0
    half = look(llama, stream, {**FAST, "max_text_tokens": 5}).tasks[0]
    assert math.isclose(half.truncated, 2 / 12)
    assert look(llama, stream, {**FAST, "max_text_tokens": 4}).tasks[0].truncated == 1
    assert half.longest == look(llama, stream).tasks[0].longest - 1


@pytest.mark.parametrize(("epochs", "told"), [([1, 2, 3], "2 of 3 stages"), (3, None)])
def test_a_penalty_that_never_acts_is_told_when_planned_and_at_the_start(
    llama, stream, tmp_path, caplog, epochs, told
):
    settings = {**FAST, "epochs": epochs}
    notes = [n for n in look(llama, stream, settings, method="n-lora").notes if "penalty" in n]
    if told is None:
        assert notes == []
        return
    [note] = notes
    assert f"'l1' never acts in {told}: they have 4 steps or fewer" in note
    listener = Listener()
    run(config(llama, stream, settings, method="n-lora"), tmp_path / "out", listener)
    assert [m for m in listener.messages if "never acts" in m] == [note]
    assert not [m for m in caplog.messages if "never acts" in m]  # said once
    notes = [record.notes["l1"]["lambda"] for record in stages(tmp_path / "out")]
    assert [value is None for value in notes] == [True, True, False]


def test_no_weight_is_measured_where_it_is_given(llama, stream):
    given = {**FAST, "l1_unit": "sum"}
    assert not any("penalty" in n for n in look(llama, stream, given, method="n-lora").notes)
    found = look(llama, stream, method="ella", settings={**FAST, "ella_unit": "relative"}).notes
    assert any("'ella' never acts in 2 of 3 stages" in note for note in found)


@pytest.mark.parametrize(("rate", "doubted"), [(1e4, True), ([1e-3, 2, 1e-3], True), (0.5, False)])
def test_a_learning_rate_that_is_more_likely_a_slip_is_told(llama, stream, rate, doubted):
    notes = look(llama, stream, {**FAST, "learning_rate": rate}).notes
    assert any("is it meant?" in note for note in notes) == doubted


@pytest.mark.parametrize(
    ("method", "settings", "told"),
    [
        ("inc-lora", {}, False),
        ("inc-lora", {"replay": 0.1}, True),
        ("inc-lora", {"replay": 0.1, "replay_budget": "same"}, False),
        ("replay", {}, True),
    ],
)
def test_that_rehearsal_makes_stages_longer_is_told(llama, stream, method, settings, told):
    notes = look(llama, stream, {**FAST, **settings}, method=method).notes
    assert any("what it rehearses adds to them" in note for note in notes) == told
