"""Tasks that are tested after every stage and never trained, and tasks with their own metrics."""

import shutil

import pytest
import yaml

from nlora.continual.answering import predict
from nlora.continual.learning import learn, run
from nlora.data.files import read_entry, read_stream
from nlora.data.task import Task
from nlora.errors import NloraError
from nlora.store.directory import ModelDirectory
from tests.runs import FAST, config, write_task


def stream(folder, **changes):
    """Two tasks that are learned, and between them one that is only tested."""
    entries = [write_task(folder, name) for name in ("colour", "fruit", "animal")]
    del entries[1]["train"]
    entries[0] |= changes
    (folder / "stream.yaml").write_text(yaml.safe_dump(entries))
    return folder / "stream.yaml"


@pytest.fixture(scope="module")
def done(llama, tmp_path_factory):
    folder = tmp_path_factory.mktemp("only-tested")
    results = run(config(llama, stream(folder)), folder / "out")
    return folder, results


def test_it_is_measured_before_training_and_after_every_stage(done):
    folder, results = done
    assert results["tasks"] == ["colour", "fruit", "animal"]
    assert results["stages"] == ["colour", "animal"]
    assert results["zero_shot"][0] is results["zero_shot"][2] is None
    columns = [row[1] for row in results["accuracy_matrix"]]
    assert None not in columns
    before, now = results["zero_shot"][1], columns[-1]
    assert results["only_tested"] == {"fruit": {"before": before, "now": now, "lost": before - now}}
    assert not any(
        "fruit" in record.fingerprints for record in ModelDirectory(folder / "out").stages()
    )


def test_what_is_said_of_learned_tasks_leaves_it_out(done):
    _, results = done
    last = results["accuracy_matrix"][-1]
    assert results["average_accuracy"] == (last[0] + last[2]) / 2
    first = results["accuracy_matrix"][0]
    assert results["learning_accuracy"] == (first[0] + last[2]) / 2
    assert results["forgetting"] == first[0] - last[0]


def test_one_more_task_is_learned_and_it_is_tested_on(done, tmp_path):
    folder, _ = done
    shutil.copytree(folder / "out", tmp_path / "out")
    (tmp_path / "size.yaml").write_text(yaml.safe_dump(write_task(tmp_path, "size")))
    task = read_entry(tmp_path / "size.yaml")
    results = learn(tmp_path / "out", task)
    assert results["tasks"] == ["colour", "animal", "size", "fruit"]
    assert [row[3] is None for row in results["accuracy_matrix"]] == [False] * 3
    assert results["only_tested"]["fruit"]["now"] == results["accuracy_matrix"][-1][3]
    assert learn(tmp_path / "out", task) == results


def test_a_run_that_was_stopped_goes_on_to_the_same_results(done, llama, tmp_path):
    folder, results = done
    shutil.copytree(folder / "out", tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "stages" / "002-animal")
    again = run(config(llama, folder / "stream.yaml"), tmp_path / "out")
    for name in ("accuracy_matrix", "only_tested", "zero_shot"):
        assert again[name] == results[name]


def test_what_needs_training_examples_is_one_line(done, llama, tmp_path):
    folder, _ = done
    with pytest.raises(
        NloraError, match="'fruit' is only tested and never learned; learned: colour, a"
    ):
        predict(folder / "out", ["x"], "fruit")
    only = read_stream(folder / "stream.yaml")[1]
    with pytest.raises(NloraError, match="has no training examples; a task that is only tested"):
        learn(folder / "out", only)
    with pytest.raises(NloraError, match="no task of the stream has training examples"):
        run(config(llama, None), tmp_path / "out", stream=[only])


def test_a_tasks_own_metric_makes_its_numbers(llama, tmp_path):
    path = stream(tmp_path, metric="contains")
    results = run(config(llama, path, {**FAST, "max_new_tokens": 9}), tmp_path / "out")
    [record, _] = ModelDirectory(tmp_path / "out").stages()
    assert record.tasks[0]["metric"] == "contains"
    assert results["accuracy_matrix"][0][0] == record.accuracy["colour"]
    assert {name: row["support"] for name, row in record.by_label["colour"].items()} == {
        "a": 2,
        "b": 2,
        "c": 2,
    }


def test_a_wrong_metric_is_refused_before_anything_is_loaded(llama, tmp_path):
    path = stream(tmp_path, metric="f2")
    with pytest.raises(NloraError, match="unknown metric 'f2'"):
        run(config(llama, path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_task_without_a_metric_is_written_as_before():
    task = Task("a", labels=("x", "y"))
    assert set(task.to_json()) == {"name", "instruction", "labels", "group", "dataset"}
    assert Task.from_json(task.to_json()) == task
    measured = Task("a", metric="f1")
    assert Task.from_json(measured.to_json()) == measured
