"""What a script hands over in another type is taken for what is meant, or refused in one line."""

import numpy as np
import pytest

import nlora
from nlora import NloraError, Task
from nlora.api.learning import requested
from nlora.api.running import configured

ROWS = [("a b", "x"), ("c d", "y")] * 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": None}, "'name' is a text, not NoneType"),
        ({"name": b"ab"}, "'name' is a text, not bytes"),
        ({"labels": 5}, "'labels' is a list of texts, not int"),
        ({"labels": b"xy"}, "'labels' is a list of texts, not bytes"),
        ({"label_names": 5}, "'label_names' is a list of texts, not int"),
        ({"instruction": 5}, "'instruction' is a text, not int"),
        ({"columns": ["a"]}, "'columns' is a mapping .*, not list"),
        ({"columns": {"text": 5}}, "columns: 'text' names no column"),
        ({"columns": {5: "a"}}, "unknown key of columns '5'"),
        ({"hold_out": "0.2"}, "'hold_out' is a number, not str"),
        ({"hold_out": None}, "'hold_out' is a number, not NoneType"),
        ({"metric": "nope"}, "unknown metric 'nope'"),
    ],
)
def test_a_task_refuses_what_its_arguments_cannot_be(options, said):
    with pytest.raises(NloraError, match=said):
        Task(**{"name": "t", "train": ROWS, **options})


@pytest.mark.parametrize("path", [None, 5, "a\0b"])
def test_what_is_no_path_is_said(path):
    for call in (
        lambda: nlora.load(path),
        lambda: nlora.run("demo", out=path, model="tiny-t5"),
        lambda: nlora.learn(path, Task("t", ROWS), model="tiny-t5"),
    ):
        with pytest.raises(NloraError, match=r"is a path, not|holds a NUL"):
            call()


def test_settings_streams_guards_and_kinds_of_another_type_are_said(tmp_path):
    asked = {"out": tmp_path / "out", "model": "tiny-t5"}
    task = Task("t", ROWS)
    for call, said in (
        (lambda: nlora.run(task, **asked, settings=["a"]), "'settings' is a mapping"),
        (lambda: nlora.run(5, **asked), "a stream is a list of tasks"),
        (lambda: nlora.learn(task=task, **asked, watch=5), "'watch' is a list of tasks"),
        (lambda: nlora.learn(task=task, **asked, max_forgetting="2"), "'max_forgetting' is a numb"),
        (lambda: nlora.learn(task=task, **asked, repair=5), "'repair' is a text"),
        (lambda: nlora.penalty([(1, 2)]), r"a list of \(A, B, scaling\)"),
        (lambda: nlora.load(tmp_path, own=5), "5 cannot be a metric"),
        (lambda: nlora.penalty([], 5), "unknown penalty '5'"),
        (lambda: nlora.analyze(tmp_path, thresholds=None), "'thresholds' is a number, a text"),
    ):
        with pytest.raises(NloraError, match=said):
            call()
    assert not list(tmp_path.iterdir())


def test_one_task_is_a_stream_of_one_and_numpys_values_are_plain(tmp_path):
    task = Task("t", ROWS, labels=np.array(["x", "y"]))
    assert task.data == Task("t", ROWS, labels=["x", "y"]).data
    settings = {"rank": np.int64(2), "learning_rate": np.float64(0.1)}
    config, tasks = configured(task, model="tiny-t5", method="inc-lora", settings=settings)
    assert tasks == [task.data]
    assert config.model_dump(mode="json")["settings"] == {"rank": 2, "learning_rate": 0.1}
    assert type(config.settings["rank"]) is int
    watched = Task("general", test=ROWS)
    found = requested(tmp_path, task, model="tiny-t5", watch=watched, max_forgetting=None)
    assert [data.name for data in found.watched] == ["general"]
    assert found.guard.bound == 100
