"""Labels that differ in punctuation alone stay apart, wherever answers are compared."""

import pytest
import yaml

from nlora.continual.learning import run
from nlora.continual.model import ContinualModel
from nlora.data.comparing import told
from nlora.data.examples import check_labels
from nlora.data.task import Example, Task, TaskData
from nlora.errors import NloraError
from nlora.evaluation.answers import Prediction, exact_match, off_list
from nlora.evaluation.metrics import by_label, metric
from nlora.evaluation.normalise import Options
from nlora.plan.resolve import resolve
from nlora.store.directory import ModelDirectory
from tests.runs import LEARNING, Listener, config, read_jsonl, write_task

APART = [(">50K", "<=50K"), ("C", "C++"), ("N/A", "na"), ("+", "-"), ("good", "Good!"), ("?", "b")]


@pytest.mark.parametrize("labels", APART)
def test_labels_that_differ_in_punctuation_alone_are_taken_and_it_is_said(labels):
    assert check_labels(labels, "here") == labels
    said = told(Task("t", labels=labels))
    assert said.startswith("task 't': punctuation counts")
    assert f"'{labels[0]}'" in said


def test_punctuation_does_not_count_where_labels_differ_without_it():
    assert told(Task("t", labels=("yes", "no!"))) is None
    assert told(Task("t")) is None
    assert off_list([Prediction("Yes.", "yes")], ("yes", "no!")) == 0


@pytest.mark.parametrize("labels", [("C++", "c++"), ("a  b", "A b")])
def test_labels_that_differ_in_case_and_spaces_alone_are_refused(labels):
    with pytest.raises(NloraError, match="are the same without case and spaces"):
        check_labels(labels, "here")


def test_every_figure_keeps_them_apart():
    labels = ("C", "C++")
    pairs = [("c ", "C"), ("C", "C++"), ("C++", "C++"), ("C#", "C")]
    rows = [Prediction(text, label, punctuated=True) for text, label in pairs]
    assert exact_match(rows) == 50
    assert metric("macro-f1")(rows) == pytest.approx(100 * (1 / 2 + 2 / 3) / 2)
    assert metric("contains")(rows) == 50
    assert off_list(rows, labels) == 25
    found = by_label(rows, labels)
    assert found["C"] == {
        **{"precision": 50, "recall": 50, "support": 2},
        **{"answered": {"C": 1}, "none": 1},
    }
    assert found["C++"]["answered"] == {"C": 1, "C++": 1}
    options = Options(labels)
    assert options.reachable(" c+")
    assert not options.reachable("c#")


def test_right_answers_of_free_text_that_differ_in_punctuation_stay_apart(llama, tmp_path):
    task = Task("sum", "How much?")
    rows = [Example(task, f"{i}", label) for i, label in enumerate(("-5", "5", "a", "A"))]
    assert "tells '-5' and '5' apart" in told(task, rows)
    assert told(task, rows[1:]) is None
    data = TaskData(task, tuple(rows), tuple(rows))
    listener = Listener()
    settings = {"precision": "fp32", "max_new_tokens": 2}
    asked = config(llama, None, settings, method="zero-shot", evaluate="all")
    model = ContinualModel.begin(resolve(asked, [data]), ModelDirectory(tmp_path), listener)
    [found] = model.evaluate([data]).values()
    assert [p.compared[1] for p in found] == ["-5", "5", "a", "a"]


def test_a_run_tells_them_apart(llama, tmp_path):
    entry = write_task(tmp_path, "colour", train=24)
    entry["labels"] = ["b", "b+", "b-"]
    for split in ("train", "test"):
        file = tmp_path / entry[split]
        text = file.read_text()
        for old, new in (("a", "b+"), ("c", "b-")):
            text = text.replace(f'"label": "{old}"', f'"label": "{new}"')
        file.write_text(text)
    (tmp_path / "stream.yaml").write_text(yaml.safe_dump([entry]))
    listener = Listener()
    asked = config(llama, tmp_path / "stream.yaml", LEARNING)
    found = run(asked, tmp_path / "out", listener)
    assert sum("punctuation counts" in line for line in listener.messages) == 1
    directory = ModelDirectory(tmp_path / "out")
    [record] = directory.stages()
    rows = read_jsonl(directory.stage_path(record) / "predictions.jsonl")
    right = [row["text"].lower() == row["label"] for row in rows]
    assert [row["correct"] for row in rows] == right
    assert found["accuracy_matrix"] == [[100 * sum(right) / len(right)]]
    likely = [row["likely"] == row["label"] for row in rows]
    assert record.among_labels["colour"] == 100 * sum(likely) / len(likely)
