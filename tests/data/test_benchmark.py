import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nlora.data.benchmark import DATASETS, load_task
from nlora.data.prompts import INSTRUCTIONS
from nlora.errors import NloraError

WriteDataset = Callable[..., Path]


def problem(data: Path, name: str = "shop") -> str:
    with pytest.raises(NloraError) as caught:
        load_task(data, name)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_data_set_has_its_splits_labels_and_the_instruction_of_its_group(write_dataset):
    task_data = load_task(write_dataset("SC/Shop"), "SHOP")
    task = task_data.task
    assert (task.name, task.group, task.dataset) == ("shop", "SC", "Shop")
    assert task.labels == ("good", "bad")
    assert task.instruction == INSTRUCTIONS["SC"]
    assert [(e.text, e.label) for e in task_data.train] == [
        ("A fine kettle.", "good"),
        ("The lid fell off.", "bad"),
    ]
    assert [e.text for e in task_data.dev] == ["It boils fast."]
    assert [e.text for e in task_data.test] == ["It leaks."]
    assert all(e.task is task for e in (*task_data.train, *task_data.dev, *task_data.test))


def test_ag_is_agnews(write_dataset):
    assert load_task(write_dataset("TC/agnews"), "AG").name == "agnews"


def test_sentences_are_kept_to_the_byte(write_dataset):
    text = "Title: Überraschung\u2028 \nText:  two  spaces\n"
    data = write_dataset(test=[{"label": "bad", "sentence": text}])
    assert load_task(data, "shop").test[0].text == text


def test_dev_may_be_missing_but_not_empty(write_dataset):
    assert load_task(write_dataset(dev=None), "shop").dev == ()
    assert "dev.json: no examples" in problem(write_dataset("SC/Other", dev=[]), "other")


@pytest.mark.parametrize("part", ["train", "test", "labels"])
def test_a_missing_file_is_named(write_dataset, part):
    message = problem(write_dataset(**{part: None}))
    assert message.startswith("no such file: ")
    assert message.endswith(f"{part}.json")


def test_a_missing_data_folder_says_how_to_get_it(tmp_path):
    message = problem(tmp_path / "nowhere")
    assert "nowhere" in message
    assert "nlora data download" in message


def test_a_folder_without_data_sets_says_what_was_expected(tmp_path):
    assert "<Group>/<Dataset>" in problem(tmp_path)


def test_an_unknown_data_set_is_answered_with_the_nearest(write_dataset):
    assert "did you mean 'shop'?" in problem(write_dataset(), "shp")


def test_a_known_data_set_that_is_absent_says_which_folder(write_dataset):
    assert "no folder NLI/RTE" in problem(write_dataset(), "RTE")


def test_a_group_without_instruction_points_to_a_yaml_stream(write_dataset):
    message = problem(write_dataset("Reviews/Shop"))
    assert "'Reviews'" in message
    assert "YAML stream" in message


def test_two_groups_with_one_name_are_not_guessed_between(write_dataset):
    write_dataset("TC/shop")
    message = problem(write_dataset("SC/Shop"))
    assert "SC/Shop" in message
    assert "TC/shop" in message


@pytest.mark.parametrize(
    ("train", "where", "what"),
    [
        ('[\n {"label": "good", "sentence": "a"},\n {"label" "bad"}\n]', "line 3", "malformed"),
        ('{"label": "good", "sentence": "a"}', "train.json", "must be a JSON array"),
        ("", "train.json", "empty"),
        ("[]", "train.json", "no examples"),
        ('[{"label": "good", "sentence": "a"},\n\n "b"]', "line 3, example 2", "object"),
        ('[{"label": "good",\n"sentence": "a"},\n{"label": "bad"}]', "line 3, example 2", "sent"),
        ('[{"sentence": "a", "lable": "x"}]', "line 1, example 1", "no 'label'"),
        ('[{"label": "god", "sentence": "a"}]', "line 1, example 1", "did you mean 'good'?"),
        ('[{"label": null, "sentence": "a"}]', "line 1, example 1", "'label' is empty"),
        ('[{"label": "good", "sentence": " "}]', "line 1, example 1", "'sentence' is empty"),
        ('[{"label": "good", "sentence": ["a"]}]', "line 1, example 1", "must be text"),
        ('[{"label": "good", "sentence": "\\ud83d"}]', "example 1", "half a character"),
        ('[{"label": "x\\n' + "y" * 500 + '", "sentence": "a"}]', "example 1", "unknown label"),
        ("[" * 100_000, "train.json", "malformed"),
    ],
)
def test_a_bad_split_is_reported_with_file_and_line(write_dataset, train, where, what):
    message = problem(write_dataset(train=train))
    assert "SC/Shop/train.json" in message
    assert where in message
    assert what in message
    assert len(message) < 400


def test_text_that_is_not_utf8_is_reported_with_its_line(write_dataset):
    data = write_dataset()
    (data / "SC/Shop/train.json").write_bytes(b'[\n{"label": "good", "sentence": "caf\xe9"}]')
    message = problem(data)
    assert "train.json, line 2: not UTF-8 (byte 0xe9 at offset 36)" in message


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        ([], "no labels"),
        (["good", "good"], "'good' stands there twice"),
        (["good", ""], "'label' is empty"),
        (["good!", "Good! "], "'good!' and 'Good! ' are the same"),
        ({"good": 1}, "must be a JSON array"),
    ],
)
def test_labels_that_cannot_be_told_apart_are_refused(write_dataset, labels, what):
    message = problem(write_dataset(labels=labels))
    assert "labels.json" in message
    assert what in message


def test_number_labels_stay_as_written(write_dataset):
    rows = [{"label": 1, "sentence": "a"}]
    data = write_dataset(labels=[1, "2.50"], train=rows, test=rows, dev=None)
    assert load_task(data, "shop").train[0].label == "1"


def test_mnli_pairs_without_gold_label_are_left_out(write_dataset):
    rows = [{"label": "good", "sentence": "a"}, {"label": "-", "sentence": "b"}]
    data = write_dataset("NLI/MNLI", train=rows)
    assert [e.text for e in load_task(data, "mnli").train] == ["a"]
    write_dataset("NLI/CB", train=rows)
    assert "unknown label '-'" in problem(data, "cb")
    write_dataset("SC/mnli2", train=rows[1:])
    (data / "NLI/MNLI/train.json").write_text('[{"label": "-", "sentence": "b"}]')
    assert "no examples" in problem(data, "mnli")


@pytest.fixture
def real_data() -> Path:
    folder = os.environ.get("NLORA_DATA")
    if not folder:
        pytest.skip("NLORA_DATA is not set: it names a folder with the benchmark's data")
    return Path(folder)


@pytest.mark.parametrize("name", DATASETS)
def test_the_benchmark_itself_loads(real_data, name):
    task_data = load_task(real_data, name)
    assert task_data.name == name
    assert f"{task_data.task.group}/{task_data.task.dataset}" == DATASETS[name]
    assert task_data.train
    assert task_data.test
    assert (task_data.task.instruction is None) == (name == "copa")


def test_loading_is_quick(write_dataset):
    rows = [{"label": "good", "sentence": f"Kettle number {i}. " * 30} for i in range(2000)]
    data = write_dataset(train=rows)
    started = time.process_time()
    load_task(data, "shop")
    assert time.process_time() - started < 0.2
