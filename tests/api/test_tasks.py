"""A task is the same one wherever its rows are."""

import json
from collections import namedtuple

import numpy as np
import pytest

from nlora import NloraError, Task
from nlora.data.files import read_texts
from nlora.data.memory import InMemory
from tests.runs import write_task

ROWS = [{"text": f"text {i}", "label": ("good", "bad")[i % 2]} for i in range(6)]
Row = namedtuple("Row", "text label")


def same(train, **options):
    asked = {"test": ROWS[:2], "labels": ["good", "bad"], **options}
    return Task("mood", train, **asked).data.fingerprint()


def test_lists_tables_data_sets_functions_and_files_give_the_same_task(tmp_path):
    import datasets
    import pandas

    table = pandas.DataFrame(ROWS)
    table.to_csv(tmp_path / "rows.csv", index=False)
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["good", "bad"])}
    )
    dataset = datasets.Dataset.from_list(ROWS, features=features)  # labels are 0 and 1
    renamed = table.rename(columns={"text": "title", "label": "team"})
    expected = same(ROWS)
    assert {
        same([(row["text"], row["label"]) for row in ROWS]),
        same([Row(**row) for row in ROWS]),
        same(table),
        same(dataset),
        same(datasets.DatasetDict(train=dataset, test=dataset.select([0, 1])), test=None),
        same(lambda: iter(ROWS)),
        same(str(tmp_path / "rows.csv")),
        same(tmp_path / "rows.csv"),
        same(renamed, columns={"text": "title", "label": "team"}, test=renamed[:2]),
    } == {expected}


def test_numbers_are_what_one_would_write_and_what_is_missing_is_said():
    import pandas

    rows = [("a", 1), ("b", np.int64(2)), ("c", np.float32(0.5)), ("d", True)]
    task = Task("n", train=rows, test=rows[:1])
    assert [e.label for e in task.data.train] == ["1", "2", "0.5", "true"]
    table = pandas.DataFrame({"text": ["a", "b"], "label": pandas.Series([1, None], dtype="Int64")})
    with pytest.raises(NloraError, match="task 'n', train, row 2: 'label' is empty"):
        Task("n", train=table, test=rows)
    left = Task("n", train=[*rows * 6, ("e", float("nan"))], test=rows, skip_bad_rows=True)
    assert len(left.data.train) == 24
    assert "row 25" in left.notes[0]


def test_two_columns_of_one_name_are_refused_as_in_a_file():
    import pandas

    table = pandas.DataFrame([["a", "b", "c"]], columns=["text", "text", "label"])
    with pytest.raises(NloraError, match="train: two columns are called 'text'; rename one"):
        Task("n", train=table)


def test_conversations_are_chats():
    turns = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]
    [example] = Task("sums", test=[turns]).data.test
    assert (example.task.chat, example.label) == (True, "4")
    assert Task("sums", test=[{"messages": np.array(turns)}]).data.test == (example,)
    assert read_texts(InMemory([turns[:1], "plain"], "texts")) == (example.text, "plain")


def test_labels_have_an_order_and_numbers_their_names(tmp_path):
    rows = [{"text": f"text {i}", "label": i % 2} for i in range(6)]
    for names in (["bad", "good"], "bad, good", {"0": "bad", "1": "good"}, {1: "good", 0: "bad"}):
        task = Task("mood", rows, rows[:2], label_names=names)
        assert task.data.task.labels == ("bad", "good")
    for options, said in (
        ({"labels": {"a", "b"}}, "'labels' is a list of texts in their order, not set"),
        ({"labels": {"a": 0}}, "'labels' is a list of texts in their order, not dict"),
        ({"label_names": {"bad", "good"}}, "'label_names' is a list of texts in their order"),
        ({"label_names": {"bad": 0, "good": 1}}, "has the numbers 0, 1, … of labels as its keys"),
    ):
        with pytest.raises(NloraError, match=said):
            Task("mood", rows, **options)
    with pytest.raises(NloraError, match="the label is one column, not 'a' and 'b'"):
        Task("m", [{"text": "t", "a": "x", "b": "y"}], columns="label=a+b")


def test_numpy_s_numbers_are_kept_as_python_s(tmp_path):
    write_task(tmp_path, "colour")
    seed, share = np.int64(3), np.float32(0.5)
    task = Task("c", tmp_path / "colour-train.jsonl", hold_out=share, hold_out_seed=seed)
    assert json.loads(json.dumps(task.data.origin))["reading"]["hold_out_seed"] == 3


def test_blanks_around_labels_are_none_of_theirs():
    rows = [("a", " pos"), ("b", "neg "), ("c", "pos"), ("d", "neg")]
    task = Task("mood", rows, rows, labels="auto").data
    assert task.task.labels == ("neg", "pos")
    assert [e.label for e in task.train] == ["pos", "neg", "pos", "neg"]


@pytest.mark.parametrize(
    ("train", "options", "said"),
    [
        (None, {}, "neither train nor test"),
        (3, {}, "train: give a list of rows, a table of pandas"),
        ({"text": ["a"]}, {}, "give a list of rows"),
        ([("a", "b", "c")], {}, "train, row 1: a row is a mapping with text and label, or"),
        ([], {}, "train: no examples"),
        (ROWS, {"labels": ["good"]}, "row 2: unknown label 'bad'"),
        (ROWS, {"columns": {"txt": "a"}}, "unknown key of columns 'txt'"),
        (ROWS, {"metric": lambda given, right: 0.0}, "give it a name"),
        ("none.csv", {}, "no such file: none.csv"),
    ],
)
def test_what_is_no_task_is_one_clear_line(train, options, said):
    with pytest.raises(NloraError, match=said):
        Task("mood", train, **options)


def test_a_name_that_stands_for_a_task_is_read_as_by_the_command_line(tmp_path):
    from nlora.api.tasks import task_of, watched_task

    write_task(tmp_path, "colour")
    file = tmp_path / "colour-train.jsonl"
    assert task_of(file).name == "colour-train"
    assert task_of(lambda: Task("mood", ROWS)).name == "mood"
    watched = watched_task(f"general={file}"), watched_task(Task("mood", ROWS, ROWS[:2]))
    assert [(w.name, w.only_tested, len(w.train), len(w.test)) for w in watched] == [
        ("general", True, 0, 12),
        ("mood", True, 0, 2),
    ]
    [said] = watched[0].notes
    assert "watch='general:auto=FILE' makes the" in said
    labelled = watched_task(f"general:auto={file}")
    assert (labelled.task.labels is not None, labelled.notes) == (True, ())
    assert watched_task(f"general:a,b,c={file}").task.labels == ("a", "b", "c")
    (tmp_path / "month=3").mkdir()
    parted = file.rename(tmp_path / "month=3" / file.name)
    assert watched_task(parted).name == watched_task(str(parted)).name == "colour-train"
    assert watched_task(f"general={parted}").name == "general"
    with pytest.raises(NloraError, match=r"watch takes FILE, NAME=FILE, NAME:auto=FILE"):
        watched_task(f"general:={file}")
    with pytest.raises(NloraError, match="is a stream"):
        task_of("demo")
    with pytest.raises(NloraError, match="not int"):
        task_of(3)


def test_a_share_that_is_none_is_refused_of_a_yaml_file_too_and_any_file_is_watched(tmp_path):
    from nlora.api.tasks import named_task, watched_task

    entry = write_task(tmp_path, "colour")
    (tmp_path / "colour-test.jsonl").rename(tmp_path / "tests")
    del entry["test"]
    (tmp_path / "task.yaml").write_text(json.dumps(entry))
    with pytest.raises(NloraError, match="hold_out is a share between 0 and 1, not 20"):
        named_task(str(tmp_path / "task.yaml"), None, hold_out=20)
    assert watched_task(f"facts={tmp_path / 'tests'}").name == "facts"
