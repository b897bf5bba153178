"""The same task next month: one more stage of a task that was learned."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from nlora.analysis.adapters import read_stages
from nlora.api.results import Evaluation, History
from nlora.continual.added import next_stage
from nlora.continual.answering import predict
from nlora.continual.cards import _table
from nlora.continual.evaluating import evaluate
from nlora.continual.history import history
from nlora.continual.learning import learn, run
from nlora.continual.model import ContinualModel
from nlora.continual.tasks import as_tasks, brought
from nlora.data.files import read_stream, task_from_files
from nlora.data.task import Example, Task, TaskData
from nlora.evaluation.matrix import summary
from nlora.methods.parts.routing import Router, RouterState
from nlora.store.directory import ModelDirectory
from nlora.study.rows import row
from tests.runs import LEARNING, Listener, config, manifests, read_jsonl, tree, write_stream


def month(folder, number, labels="abc", tests=6, **more):
    """The files of a month of the task `colour`, whose answers follow from the first letter."""
    files = []
    for split, count in (("train", 24), ("test", tests)):
        rows = [
            {"text": f"{'xyz'[i % 3] * 3} {number}{split}{i}", "label": labels[i % 3]}
            for i in range(count)
        ]
        files.append(folder / f"{number}-{split}.jsonl")
        files[-1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return task_from_files("colour", *files, **more)


@pytest.fixture(scope="module")
def january(llama, tmp_path_factory):
    """`inc-lora` with routing by the input over `colour` and `animal`."""
    folder = tmp_path_factory.mktemp("january")
    tasks = read_stream(write_stream(folder, "colour", "animal", train=24))
    settings = {**LEARNING, "epochs": 4, "routing": "input"}
    run(config(llama, None, settings), folder / "out", stream=tasks)
    return folder / "out"


@pytest.fixture(scope="module")
def february(january, tmp_path_factory):
    """One more stage of `colour`, with a new label, on the files alone; what it said."""
    folder = tmp_path_factory.mktemp("february")
    shutil.copytree(january, folder / "out")
    listener = Listener()
    data = month(folder, 2, labels="abd", tests=9)
    results = learn(folder / "out", data, progress=listener)
    return folder / "out", results, listener.messages, data


def test_it_is_a_stage_on_top_of_the_tasks_own_last_update(february):
    out, results, _, _ = february
    assert results["tasks"] == ["colour", "animal"]
    assert results["stages"] == ["colour", "animal", "colour (2)"]
    records = ModelDirectory(out).stages()
    assert records[2].folder == "003-colour"
    assert manifests(out)[2] == ["001-colour", "003-colour"]
    assert records[2].notes["on_top_of"] == "001-colour"
    assert [a.continues for a in read_stages(out)] == [None] * 3


def test_question_and_labels_stay_and_a_new_label_is_told(february):
    out, _, said, _ = february
    task = ModelDirectory(out).stages()[2].tasks[0]
    assert (task["instruction"], task["labels"]) == ("Which colour?", ["a", "b", "c", "d"])
    assert "'colour' has a new label: d (8 of 24 training rows)" in said


def test_the_tests_of_both_months_count_as_one_task_and_are_told_apart(february):
    out, results, _, _ = february
    first, _, last = ModelDirectory(out).stages()
    assert (first.parts, last.tested) == ({}, {"colour": 15, "animal": 6})
    parts = last.parts["colour"]
    assert [(name, part.rows) for name, part in parts.items()] == [
        ("001-colour", 6),
        ("003-colour", 9),
    ]
    answers = read_jsonl(out / "stages/003-colour/predictions.jsonl")
    right = [r["correct"] for r in answers if r["task"] == "colour"]
    assert parts["001-colour"].accuracy == pytest.approx(100 * sum(right[:6]) / 6)
    assert last.accuracy["colour"] == pytest.approx(100 * sum(right) / 15)

    then, now = first.accuracy["colour"], parts["001-colour"].accuracy
    animal = [record.accuracy.get("animal") for record in ModelDirectory(out).stages()[1:]]
    best = max(then, results["accuracy_matrix"][1][0])  # the same six tests
    assert results["forgetting"] == pytest.approx(((best - now) + (animal[0] - animal[1])) / 2)
    learned = (6 * then + 9 * parts["003-colour"].accuracy) / 15
    assert results["learning_accuracy"] == pytest.approx((learned + animal[0]) / 2)
    assert results["average_accuracy"] == pytest.approx(sum(results["accuracy_matrix"][2]) / 2)


def test_history_and_card_compare_answers_to_the_same_tests(february):
    out, results, _, _ = february
    first, second, last = ModelDirectory(out).stages()
    before = max(first.accuracy["colour"], second.accuracy["colour"])
    parts = last.parts["colour"]
    told = history(ModelDirectory(out))
    rows = [stage["tasks"][0] for stage in told["stages"]]
    assert (rows[0]["then"], rows[0]["now"]) == (
        first.accuracy["colour"],
        parts[first.folder].accuracy,
    )
    assert rows[0]["forgotten"] == before - rows[0]["now"]
    assert (rows[2]["then"], rows[2]["forgotten"]) == (parts[last.folder].accuracy, None)
    lost = [row["forgotten"] for row in rows[:2]]
    assert results["forgetting"] == pytest.approx(sum(lost) / 2)
    assert f"| 6 | {rows[0]['then']:.1f} | {rows[0]['now']:.1f} |" in _table(told)
    assert told["shared"] == {}


def test_what_was_recorded_on_other_tests_is_not_shown_beside_a_new_figure(february):
    out, _, _, _ = february
    found = evaluate(out, after="2")
    recorded = {row["task"]: row["recorded"] for row in found["tasks"]}
    assert recorded == {"colour": None, "animal": recorded["animal"]}
    assert recorded["animal"] is not None
    assert found["learned_again"] == ["colour"]
    assert "nothing is recorded of colour on these tests after that stage" in str(Evaluation(found))
    assert evaluate(out)["learned_again"] == []


def test_the_router_takes_both_months_for_one_task_and_its_newest_model(february):
    out, _, _, _ = february
    model = ContinualModel.open(out)
    assert model.stage_of("colour") == 3
    assert sorted(model.method.state.by_text.stages) == [2, 3]
    assert model.records[2].notes["routing"]["tasks"] == ["animal", "colour"]
    said = predict(out, ["xxx 1", "zzz 2"], "colour")
    assert set(said[0].probabilities) == {"a", "b", "c", "d"}


def test_each_month_is_known_again(january, february):
    out, results, _, data = february
    before, listener = tree(out), Listener()
    assert learn(out, data, progress=listener) == results
    assert "nothing to do" in listener.messages[-1]
    first = [january.parent / f"colour-{split}.jsonl" for split in ("train", "test")]
    assert learn(out, task_from_files("colour", *first), progress=listener) == results
    assert "nothing to do" in listener.messages[-1]
    assert tree(out) == before


def test_a_new_name_for_labels_that_are_known_is_asked_about(january, tmp_path):
    def said(labels, **more):
        listener = Listener()
        data = replace(month(tmp_path, 2, labels=labels), **more)
        assert next_stage(january, data, progress=listener) is not None
        return [message for message in listener.messages if "a task of its own" in message]

    february = Task("february", labels=("a", "b", "d"))
    [asked] = said("abd", task=february)
    assert "'colour' has labels of it (a, b); if it is more of 'colour': name='colour'" in asked
    assert len(said("abd", task=Task("february"))) == 1  # free text, of the same answers
    assert said("agh", task=Task("february", labels=("a", "g", "h"))) == []
    assert said("abd") == []


def test_a_ledger_tells_the_stages_apart(february):
    found = row(ModelDirectory(february[0]), None)
    assert list(found["losses"]) == ["colour", "animal", "colour (2)"]
    assert found["answers"]["stages"][2].keys() == {"colour", "animal"}


def test_a_changed_question_and_training_texts_that_were_tests_are_told(january, tmp_path):
    shutil.copytree(january, tmp_path / "out")
    tests = [r["text"] for r in read_jsonl(january / "stages/001-colour/test.jsonl")]
    data = month(tmp_path, 2, instruction="Which shade?")
    with (tmp_path / "2-train.jsonl").open("a") as file:
        file.write(json.dumps({"text": tests[0], "label": "a"}) + "\n")
    data = task_from_files(
        "colour", tmp_path / "2-train.jsonl", tmp_path / "2-test.jsonl", instruction="Which shade?"
    )
    listener = Listener()
    learn(tmp_path / "out", data, progress=listener)
    assert "'colour' is asked otherwise from now on: Which shade?" in listener.messages
    assert any("1 of 25 training texts of 'colour' are among" in m for m in listener.messages)


def test_tests_that_come_again_count_once(january, tmp_path):
    shutil.copytree(january, tmp_path / "out")
    shutil.copy(january / "stages/001-colour/test.jsonl", tmp_path / "old.jsonl")
    month(tmp_path, 2)
    data = task_from_files("colour", tmp_path / "2-train.jsonl", tmp_path / "old.jsonl")
    learn(tmp_path / "out", data)
    last = ModelDirectory(tmp_path / "out").stages()[2]
    assert last.tested["colour"] == 6
    assert [part.rows for part in last.parts["colour"].values()] == [6, 6]
    told = history(ModelDirectory(tmp_path / "out"))
    assert (told["kept"]["test"]["colour"], told["shared"]) == (12, {"colour": 6})
    assert "test examples that several stages brought count once: colour 6" in str(History(told))


def test_each_row_of_a_stage_counts_once_however_often_its_text_comes():
    task = Task("colour", labels=("a", "b"))

    def stage(texts):
        return TaskData(task, (), tuple(Example(task, text, "a") for text in texts))

    stages = [stage("xxy"), stage("xz"), stage("zyxxx")]
    tests = [e.text for e in as_tasks(stages)[0].test]
    found = brought(stages)
    assert tests == list("xxyz")
    assert found == [[0, 1, 2], [0, 3], [3, 2, 0, 1, 0]]
    assert ["".join(tests[i] for i in places) for places in found] == ["xxy", "xz", "zyxxx"]


@pytest.mark.parametrize(
    ("method", "settings", "updates"),
    [
        ("inc-lora", {}, ["001-colour", "002-animal", "003-colour"]),
        ("seq-lora", {}, ["003-colour"]),
        ("de-lora", {}, ["003-colour"]),
        ("per-task", {"adapter": "full", "learning_rate": 1e-3}, ["003-colour"]),
    ],
)
def test_other_methods_go_on_as_they_do(llama, tmp_path, method, settings, updates):
    tasks = read_stream(write_stream(tmp_path, "colour", "animal", train=12))
    asked = config(llama, None, {**LEARNING, "epochs": 2, **settings}, method=method)
    run(asked, tmp_path / "out", stream=tasks)
    results = learn(tmp_path / "out", month(tmp_path, 2))
    assert results["stages"] == ["colour", "animal", "colour (2)"]
    assert manifests(tmp_path / "out")[2] == updates
    model = ContinualModel.open(tmp_path / "out")  # and what was measured is there again
    tested = next(data for data in model.stream if data.name == "animal")
    assert model.measured(model.evaluate([tested]))["animal"] == results["accuracy_matrix"][2][1]


def test_where_updates_stand_alone_the_tasks_own_is_continued(llama, tmp_path):
    tasks = read_stream(write_stream(tmp_path, "colour", "animal", train=12))
    asked = config(llama, None, {**LEARNING, "epochs": 1, "learning_rate": 1e-9}, method="de-lora")
    run(asked, tmp_path / "out", stream=tasks)
    learn(tmp_path / "out", month(tmp_path, 2))
    first, _, third = read_stages(tmp_path / "out")
    assert third.continues == first.name
    for name in first.shapes:
        assert torch.allclose(first.factors(name).A, third.factors(name).A, atol=1e-5)


def test_pooled_statistics_are_those_of_all_texts():
    rows = torch.randn(60, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    apart, whole = Router(RouterState()), Router(RouterState())
    apart.add(1, rows[:10])
    apart.add(2, rows[40:])
    apart.add(3, rows[10:40], 1)
    whole.add(2, rows[40:])
    whole.add(3, rows[:40])
    assert apart.state.stages == [2, 3]
    for mine, other in zip(apart.fitted(), whole.fitted(), strict=True):
        assert torch.allclose(mine, other)
    assert apart.state.counts == whole.state.counts


def test_columns_of_one_task_count_as_one():
    matrix = [[80.0, None, None], [60.0, 90.0, None], [40.0, 70.0, 50.0]]
    found = summary(matrix, None, [("a", 30), ("b", 8), ("a", 10)])
    assert found["forgetting"] == (40.0 + 20.0) / 2
    assert found["learning_accuracy"] == ((30 * 80 + 10 * 50) / 40 + 90) / 2
    assert summary(matrix, None)["learning_accuracy"] == pytest.approx((80 + 90 + 50) / 3)
