"""A trained model answers new texts as it answered its tests."""

import re

import pytest
import torch
import yaml

from nlora.continual.answering import predict
from nlora.continual.learning import run
from nlora.continual.model import ContinualModel
from nlora.data.task import Example
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


def told(model_dir, task, stage="002-animal"):
    """The test texts of a task and what a stage's model answered to them."""
    texts = [row["text"] for row in read_jsonl(next(model_dir.glob(f"stages/*-{task}/test.jsonl")))]
    rows = read_jsonl(model_dir / "stages" / stage / "predictions.jsonl")
    return texts, [row["text"] for row in rows if row["task"] == task]


@pytest.mark.parametrize("method", ["inc-lora", "de-lora", "per-task"])
@pytest.mark.parametrize("task", ["colour", "animal"])
def test_answers_are_those_of_the_evaluation(trained, method, task):
    own = method == "de-lora" and task == "colour"  # a router may take some of these for others
    texts, answers = told(trained / method, task, stage="001-colour" if own else "002-animal")
    before = tree(trained / method)
    found = predict(trained / method, texts, task, free=True)
    assert [a.answer for a in found] == answers
    assert [(a.text, a.task) for a in found] == [(text, task) for text in texts]
    assert tree(trained / method) == before


@pytest.mark.parametrize("method", ["inc-lora", "de-lora"])
def test_an_answer_is_the_label_that_the_model_scores_highest(trained, method):
    texts, _ = told(trained / method, "animal")
    found = predict(trained / method, [*texts, "", "nothing of the kind"], "animal")
    model = ContinualModel.open(trained / method)
    task = model.stream[1].task
    for answer in found:
        rows = [Example(task, answer.text, label) for label in task.labels]
        with model.after(2):  # a task that is named is answered by its own model
            scores = torch.tensor(model.context().score(rows), dtype=torch.float64)
        plain = dict(zip(task.labels, scores.softmax(0).tolist(), strict=True))
        assert answer.probabilities == pytest.approx(plain, abs=1e-4)
        assert answer.answer in task.labels
        assert answer.probabilities[answer.answer] == max(answer.probabilities.values())


def test_a_router_finds_the_task_of_each_text(trained):
    model_dir = trained / "de-lora"
    texts = [text for task in ("colour", "animal") for text in told(model_dir, task)[0]]
    mixed = [texts[i] for i in (*range(0, 12, 2), *range(1, 12, 2))]
    found = predict(model_dir, mixed)
    assert [a.text for a in found] == mixed
    for task in ("colour", "animal"):
        mine = [a for a in found if a.task == task]
        assert all(a.confidence >= 0.5 and not a.unknown for a in mine)
        plain = [a._replace(confidence=None) for a in mine]
        assert plain == predict(model_dir, [a.text for a in mine], task)
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
        (trained / "inc-lora", None, "which task? name one of colour, animal as task"),
        (trained / "inc-lora", "animals", "unknown task 'animals'; did you mean 'animal'"),
    ):
        with pytest.raises(NloraError, match=re.escape(said)) as caught:
            predict(model_dir, ["x"], task)
        assert "\n" not in str(caught.value)
