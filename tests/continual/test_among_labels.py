"""Tests measure what the labels' likelihoods say beside what greedy decoding says."""

import json
import shutil

import pytest
import yaml

from nlora.cli.console import show_results
from nlora.continual.answering import predict
from nlora.continual.learning import run
from nlora.continual.results import results
from nlora.store.directory import ModelDirectory
from tests.runs import FAST, Listener, config, read_jsonl, write_stream, write_task


def last(out):
    directory = ModelDirectory(out)
    record = directory.stages()[-1]
    return record, read_jsonl(directory.stage_path(record) / "predictions.jsonl")


@pytest.mark.parametrize("kind", ["inc-lora", "de-lora", "per-task"])
def test_the_most_likely_label_is_that_of_predict_with_the_same_model(kind, finished):
    done = finished(kind)
    record, rows = last(done.out)
    for task, tests in ModelDirectory(done.out).tests().items():
        likely = [row["likely"] for row in rows if row["task"] == task]
        right = [row["likely"] == row["label"] for row in rows if row["task"] == task]
        assert record.among_labels[task] == 100 * sum(right) / len(right)
        if kind != "de-lora":  # whose tests are routed, and a named task of predict is not
            given = predict(done.out, [test["text"] for test in tests], task)
            assert [answer.answer for answer in given] == likely
    found = json.loads((done.out / "results.json").read_text(encoding="utf-8"))
    among, off = found["among_labels"], found["off_list"]
    assert "averaged" not in among
    assert among["accuracy_matrix"][-1] == [record.among_labels[t] for t in found["tasks"]]
    assert among["average_accuracy"] == sum(among["accuracy_matrix"][-1]) / 2
    assert among["forgetting"] == among["accuracy_matrix"][0][0] - among["accuracy_matrix"][1][0]
    assert off["matrix"][-1] == [record.off_list[t] for t in found["tasks"]]
    assert off["average"] == sum(off["matrix"][-1]) / 2
    assert None not in (*among["zero_shot"], *off["zero_shot"])


@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_the_protocol_has_the_same_numbers_without_it(shape, request, tmp_path):
    stream = write_stream(tmp_path, "colour", "animal")
    found = {}
    for on in ("auto", False):
        asked = config(request.getfixturevalue(shape), stream, {**FAST, "among_labels": on})
        found[on] = run(asked, tmp_path / str(on))
    assert "among_labels" in found["auto"]
    assert "among_labels" not in found[False]
    assert found["auto"]["accuracy_matrix"] == found[False]["accuracy_matrix"]
    assert found["auto"]["off_list"] == found[False]["off_list"]
    with_it, without = (last(tmp_path / name)[1] for name in ("auto", "False"))
    assert [{k: v for k, v in row.items() if k != "likely"} for row in with_it] == without


def test_tasks_without_labels_are_left_out_which_is_said(llama, tmp_path, capsys):
    entries = [write_task(tmp_path, "colour"), write_task(tmp_path, "animal")]
    del entries[1]["labels"]
    (tmp_path / "stream.yaml").write_text(yaml.safe_dump(entries))
    found = run(config(llama, tmp_path / "stream.yaml"), tmp_path / "out")
    [_, row] = found["among_labels"]["accuracy_matrix"]
    assert row[1] is None
    assert found["among_labels"]["average_accuracy"] == row[0]
    assert found["off_list"]["matrix"][-1][1] is None
    assert found["off_list"]["average"] == found["off_list"]["matrix"][-1][0]
    # another set of tasks than that of the accuracy beside them, so it is named
    assert found["among_labels"]["averaged"] == found["off_list"]["averaged"] == ["colour"]
    show_results(found)
    shown = " ".join(capsys.readouterr().out.split())
    assert "average accuracy among labels (1 of 2 tasks)" in shown
    assert "answers off the list (%) (1 of 2 tasks)" in shown


def test_stages_of_an_earlier_version_have_results_as_before(finished, tmp_path):
    shutil.copytree(finished("inc-lora").out, tmp_path / "out")
    for file in (tmp_path / "out" / "stages").glob("*/stage.json"):
        record = json.loads(file.read_text(encoding="utf-8"))
        del record["among_labels"], record["off_list"], record["sha256"]
        record |= {"format": 1, "updates": record.pop("manifest")["adds"]}
        file.write_text(json.dumps(record), encoding="utf-8")
    found = results(ModelDirectory(tmp_path / "out"), ["colour", "animal"], "inc-lora")
    assert found["average_accuracy"] is not None
    assert not {"among_labels", "off_list"} & found.keys()


def test_a_model_that_cannot_read_a_prompt_once_measures_it_only_if_told_to(llama, tmp_path):
    stream = write_stream(tmp_path, "colour", "animal")
    listener = Listener()
    settings = {**FAST, "prompt_length": 2}
    asked = config(llama, stream, settings, method="prog-prompt")
    found = run(asked, tmp_path / "auto", listener)
    assert "among_labels" not in found
    assert sum("most likely label" in line for line in listener.messages) == 1
    asked = config(llama, stream, {**settings, "among_labels": True}, method="prog-prompt")
    told = run(asked, tmp_path / "told")
    assert None not in told["among_labels"]["accuracy_matrix"][-1]
    assert told["accuracy_matrix"] == found["accuracy_matrix"]
