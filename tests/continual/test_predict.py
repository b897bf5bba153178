"""A trained model answers new texts as it answered its tests."""

import pytest
import yaml

from nlora.continual.answering import predict
from nlora.continual.learning import run
from nlora.errors import NloraError
from tests.runs import LEARNING, config, read_jsonl, tree, write_stream, write_task


@pytest.fixture(scope="module")
def trained(llama, tmp_path_factory):
    """Runs on the same two tasks, by method."""
    folder = tmp_path_factory.mktemp("runs")
    entries = [write_task(folder, "colour", 24), write_task(folder, "animal", 24, start=500)]
    stream = folder / "stream.yaml"
    stream.write_text(yaml.safe_dump(entries))
    for method in ("inc-lora", "de-lora", "per-task"):
        run(config(llama, stream, LEARNING, method=method), folder / method)
    return folder


def told(model_dir, task):
    """The test texts of a task and what the last stage's model answered to them."""
    texts = [row["text"] for row in read_jsonl(next(model_dir.glob(f"stages/*-{task}/test.jsonl")))]
    rows = read_jsonl(model_dir / "stages" / "002-animal" / "predictions.jsonl")
    return texts, [row["text"] for row in rows if row["task"] == task]


@pytest.mark.parametrize("method", ["inc-lora", "de-lora", "per-task"])
@pytest.mark.parametrize("task", ["colour", "animal"])
def test_answers_are_those_of_the_evaluation(trained, method, task):
    texts, answers = told(trained / method, task)
    before = tree(trained / method)
    found = predict(trained / method, texts, task)
    assert [a.answer for a in found] == answers
    assert [(a.text, a.task) for a in found] == [(text, task) for text in texts]
    assert tree(trained / method) == before


def test_a_router_finds_the_task_of_each_text(trained):
    model_dir = trained / "de-lora"
    texts = [text for task in ("colour", "animal") for text in told(model_dir, task)[0]]
    mixed = [texts[i] for i in (*range(0, 12, 2), *range(1, 12, 2))]
    found = predict(model_dir, mixed)
    assert [a.text for a in found] == mixed
    for task in ("colour", "animal"):
        mine = [a for a in found if a.task == task]
        assert mine == predict(model_dir, [a.text for a in mine], task)
        assert len({a.text for a in mine} & set(told(model_dir, task)[0])) >= 4


def test_the_only_task_need_not_be_named(llama, tmp_path):
    run(config(llama, write_stream(tmp_path, "colour")), tmp_path / "out")
    assert [a.task for a in predict(tmp_path / "out", ["xxx 1", "yyy 2"])] == ["colour"] * 2


def test_what_cannot_be_asked_is_one_line(trained, llama, tmp_path):
    run(
        config(llama, trained / "stream.yaml", method="zero-shot", evaluate="all"),
        tmp_path / "zero",
    )
    for model_dir, task, said in (
        (tmp_path / "nothing", None, "nothing holds no model"),
        (tmp_path / "zero", None, "has learned no task yet"),
        (trained / "inc-lora", None, "which task? name one of colour, animal"),
        (trained / "inc-lora", "animals", "unknown task 'animals'; did you mean 'animal'"),
    ):
        with pytest.raises(NloraError, match=said.replace("?", "[?]")) as caught:
            predict(model_dir, ["x"], task)
        assert "\n" not in str(caught.value)
