import math
import shutil

import pytest

from nlora.continual.learning import run
from nlora.continual.preview import preview
from nlora.plan.resolve import resolve
from tests.runs import FAST, config, read_jsonl, write_stream


def look(model, stream, settings=FAST, **values):
    return preview(resolve(config(model, stream, settings, **values)))


@pytest.fixture
def stream(tmp_path):
    return write_stream(tmp_path)


@pytest.mark.parametrize("method", ["inc-lora", "replay", "prog-prompt"])
@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_no_weights_are_read_and_parameters_are_counted(request, tmp_path, stream, shape, method):
    model = shutil.copytree(request.getfixturevalue(shape), tmp_path / "model")
    (model / "model.safetensors").unlink()
    found = look(model, stream, method=method)
    width, layers = 32, 2
    expected = {
        # q and v of every attention; T5 has two more in each layer of its decoder
        "inc-lora": (layers if shape == "llama" else 3 * layers) * 2 * 2 * 8 * width,
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


def test_two_prompts_are_shown_with_the_tokens_that_count(llama, t5, stream):
    for model in (llama, t5):
        first, second = look(model, stream).examples
        assert (first.task, second.task) == ("colour", "animal")
        assert first.prompt.startswith("Which colour?\nOption: a, b, c \nxxx 0\nAnswer:")
        assert "".join(first.answer_tokens).strip() == "a</s>"


def test_a_stream_of_one_task_shows_two_of_its_examples(llama, tmp_path):
    stream = write_stream(tmp_path, "colour", labels=False)
    found = look(llama, stream)
    assert [e.prompt for e in found.examples] == ["xxx 0\nAnswer:", "yyy 1\nAnswer:"]
    assert found.tasks[0].labels is None


def test_the_share_of_cut_texts_is_shown(llama, stream):
    # texts are "xxx 0" to "zzz 11": byte tokens, 5 for the first ten, 6 for the others
    assert look(llama, stream).tasks[0].truncated == 0
    half = look(llama, stream, {**FAST, "max_text_tokens": 5}).tasks[0]
    assert math.isclose(half.truncated, 2 / 12)
    assert look(llama, stream, {**FAST, "max_text_tokens": 4}).tasks[0].truncated == 1
    assert half.longest == look(llama, stream).tasks[0].longest - 1
