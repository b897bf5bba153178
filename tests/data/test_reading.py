import io
import json
from collections import Counter
from pathlib import Path

import pytest

from nlora.data.balance import slips
from nlora.data.comparing import normalise
from nlora.data.files import read_stream, task_from_files
from nlora.data.formats import source
from nlora.data.holdout import hold_out
from nlora.data.reading import Reading
from nlora.data.task import Example, Task
from nlora.errors import NloraError, Several


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" if row else "{\n" for row in rows))
    return path


def rows(count, first=0):
    return [{"text": f"text {first + i}", "label": "abc"[i % 3]} for i in range(count)]


def with_bad(count, *bad):
    return [*rows(count - len(bad)), *bad]


EMPTY = {"text": " ", "label": "a"}


@pytest.fixture
def test_file(tmp_path):
    return write(tmp_path / "test.jsonl", rows(3, first=1000))


def test_a_file_with_bad_rows_is_refused_with_the_first_of_them(tmp_path, test_file):
    train = write(tmp_path / "train.jsonl", with_bad(99, EMPTY, None, EMPTY, EMPTY, {"text": "x"}))
    with pytest.raises(Several) as caught:
        task_from_files("a", train, test_file)
    malformed, *empty, more = caught.value.faults
    assert "line 96, column 2: malformed JSON" in malformed
    assert [f"line {n}" in fault for n, fault in zip((95, 97), empty, strict=True)] == [True, True]
    assert "2 more rows; skip_bad_rows=True" in more


def test_bad_rows_are_left_out_counted_and_listed(tmp_path, test_file):
    train = write(tmp_path / "train.jsonl", with_bad(100, EMPTY, None))
    skip = Reading(on_bad_row="skip")
    task = task_from_files("a", train, test_file, reading=skip)
    assert (len(task.train), task.bad_rows) == (98, 2)
    assert "2 of 100 rows left out: " in task.notes[0]
    assert "line 99: 'text' is empty" in task.notes[0]
    assert "line 100, column 2: malformed" in task.notes[0]
    many = write(tmp_path / "many.jsonl", with_bad(100, *[EMPTY] * 6))
    with pytest.raises(NloraError, match="6 of 100 rows are wrong, more than 5%"):
        task_from_files("a", many, test_file, reading=skip)
    table = tmp_path / "a.csv"
    table.write_text("text,label\n" + "t,a\n" * 30 + "one\n")
    task = task_from_files("a", table, test_file, reading=skip)
    assert (len(task.train), task.bad_rows) == (30, 1)
    assert "line 32: the row has 1 cells, the header 2" in task.notes[0]


def test_bad_rows_change_no_fingerprint(tmp_path, test_file):
    good = task_from_files("a", write(tmp_path / "good.jsonl", rows(98)), test_file)
    bad = write(tmp_path / "bad.jsonl", with_bad(100, EMPTY, None))
    skipped = task_from_files("a", bad, test_file, reading=Reading(on_bad_row="skip"))
    assert skipped.fingerprint() == good.fingerprint()


def test_all_that_is_wrong_with_a_stream_is_said_at_once(tmp_path):
    (tmp_path / "latin.csv").write_bytes("text,label\nÜ,a\n".encode("latin-1"))
    write(tmp_path / "odd.jsonl", [{"txt": "a", "label": "b"}])
    write(tmp_path / "label.jsonl", [{"text": "a", "label": "yess"}, EMPTY])
    write(tmp_path / "good.jsonl", rows(4))
    (tmp_path / "s.yaml").write_text(
        "- {name: one, train: latin.csv, test: odd.jsonl}\n"
        "- {name: two, train: good.jsonl, test: good.jsonl}\n"
        "- {name: three, train: label.jsonl, test: none.jsonl, labels: [yes, no, a, b, c]}\n"
        "- {name: four, tran: good.jsonl}\n"
        "- {name: five, train: good.jsonl, on_bad_row: skipp}\n"
    )
    with pytest.raises(Several) as caught:
        read_stream(tmp_path / "s.yaml")
    expected = [
        "latin.csv, line 2: not UTF-8",
        "odd.jsonl, line 1: no 'text'",
        "label.jsonl, line 1: unknown label 'yess'",
        "label.jsonl, line 2: 'text' is empty",
        "no such file",
        "did you mean 'train'",
        "unknown on_bad_row 'skipp'; did you mean 'skip'",
    ]
    assert len(caught.value.faults) == len(expected)
    for fault, said in zip(caught.value.faults, expected, strict=True):
        assert said in fault
    assert str(caught.value).startswith("7 things are wrong:\n  - ")


def test_the_keys_of_an_entry(tmp_path):
    lines = "Stars;Review\n" + "".join(f"{i % 2};Käse {i}\n" for i in range(10))
    (tmp_path / "a.csv").write_bytes(lines.encode("cp1252"))
    (tmp_path / "s.yaml").write_text(
        "- name: a\n  train: a.csv\n  columns: {text: review, label: stars}\n"
        "  label_names: [bad, good]\n  encoding: cp1252\n  hold_out: 0.3\n  hold_out_seed: 4\n"
    )
    [task] = read_stream(tmp_path / "s.yaml")
    assert task.task.labels == ("bad", "good")
    assert (len(task.train), len(task.test)) == (7, 3)
    assert task.train[0].text.startswith("Käse")
    assert "no test file, so 3 of 10 examples (30%) are held out" in task.notes[0]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("hold_out: 1", "share between 0 and 1"),
        ("hold_out: many", "must be a number"),
        ("columns: review", "must be names"),
        ("columns: {txt: review}", "did you mean 'text'"),
        ("label_names: good", "must be a list"),
        ("labels: auto, train: one.jsonl", "too few texts to hold a part out"),
    ],
)
def test_a_bad_key_is_one_line(tmp_path, keys, said):
    write(tmp_path / "a.jsonl", rows(9))
    write(tmp_path / "one.jsonl", rows(1))
    train = "" if "train" in keys else ", train: a.jsonl"
    (tmp_path / "s.yaml").write_text(f"- {{name: a, {keys}{train}}}\n")
    with pytest.raises(NloraError, match=said) as caught:
        read_stream(tmp_path / "s.yaml")
    assert "\n" not in str(caught.value)


def test_texts_of_test_that_are_in_train_are_told(tmp_path):
    train = write(tmp_path / "a.jsonl", rows(9))
    test = write(tmp_path / "b.jsonl", rows(12)[6:])
    assert "3 of 6 test texts are also in train" in task_from_files("a", train, test).notes[0]


def test_one_file_as_train_and_test_is_told(tmp_path):
    path = write(tmp_path / "a.jsonl", rows(9))
    assert "train and test are the same file" in task_from_files("a", path, path).notes[0]
    with pytest.raises(Several, match="train and test are the same file"):
        task_from_files("a", path, path, dev=tmp_path / "none.jsonl")


def made(*pairs):
    return [Example(Task("a"), text, label) for text, label in pairs]


def test_what_is_held_out_keeps_shares_texts_and_order():
    pairs = [(f"text {i % 90}", "rare" if i % 90 < 10 else "often") for i in range(120)]
    examples = made(*pairs)
    train, test = hold_out(examples, 0.2, seed=0)
    assert sorted([*train, *test], key=examples.index) == sorted(examples, key=examples.index)
    assert list(test) == [e for e in examples if e in test]
    kept = {normalise(e.text) for e in train}
    assert not kept & {normalise(e.text) for e in test}
    texts = Counter(label for _, label in {(e.text, e.label) for e in test})
    assert texts == {"rare": 2, "often": 16}
    assert hold_out(examples, 0.2, seed=0) == (train, test)
    assert hold_out(examples, 0.2, seed=1) != (train, test)


def test_free_answers_and_few_examples_are_held_out_too():
    train, test = hold_out(made(*((f"q{i}", f"a{i}") for i in range(50))), 0.1, seed=0)
    assert (len(train), len(test)) == (45, 5)
    train, test = hold_out(made(("a", "x"), ("b", "y")), 0.01, seed=0)
    assert (len(train), len(test)) == (1, 1)
    train, test = hold_out(made(("a", "x"), ("b", "y"), ("c", "y")), 0.99, seed=0)
    assert len(train) == 1
    train, test = hold_out(made(("a", "x"), (" A", "y")), 0.5, seed=0)
    assert not test


def test_rows_that_are_added_later_move_few():
    before = made(*((f"q{i}", "ab"[i % 2]) for i in range(100)))
    after = before + made(*((f"new{i}", "ab"[i % 2]) for i in range(20)))
    moved = set(hold_out(before, 0.2, 0)[1]) - set(hold_out(after, 0.2, 0)[1])
    assert len(moved) <= 5


def test_a_label_of_several_texts_is_never_held_out_whole(tmp_path):
    train, test = hold_out(
        made(*((f"q{i}", "ab"[i % 2]) for i in range(4)), ("c1", "c"), ("c2", "c")), 0.8, seed=0
    )
    assert {e.label for e in train} == {e.label for e in test} == {"a", "b", "c"}


def test_a_label_that_is_tested_and_not_trained_is_told(tmp_path):
    lines = [{"text": f"t{i}", "label": f"label {i}"} for i in range(4)]
    path = write(tmp_path / "a.jsonl", lines)
    labels = [line["label"] for line in lines]
    data = task_from_files("a", path, None, labels=labels)
    assert f"not trained: '{data.test[0].label}'" in " ".join(data.notes)
    assert "not trained" not in " ".join(task_from_files("a", path, None).notes)


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({"positive": 400, "negative": 380, "postive": 1}, [("postive", "positive")]),
        ({"positive": 400, "postive": 30}, []),  # too many to be slips
        ({"class 1": 400, "class 2": 1, "10": 90, "1": 1}, []),  # digits tell labels apart
        ({"correct": 400, "incorrect": 2}, []),  # another word
        ({"yes": 50, "no": 2, "y": 1}, []),
        ({"good": 40, "unused": 0, "goood": 0}, []),
    ],
)
def test_rare_labels_that_are_nearly_frequent_ones(counts, told):
    assert slips(counts) == told


def test_labels_that_somebody_listed_are_not_doubted(tmp_path):
    rows = [{"text": f"t{i}", "label": "good" if i else "goood"} for i in range(60)]
    path = write(tmp_path / "a.jsonl", rows)
    notes = " ".join(task_from_files("a", path, None, labels=["good", "goood"]).notes)
    assert "nearly" not in notes
    assert "nearly 'good' (59)" in " ".join(task_from_files("a", path, None, labels="auto").notes)


def test_rows_of_standard_input_are_in_no_file(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"text,label\na,x\nb,x\n")))
    read = task_from_files("a", source("-", Path()), None)
    assert (len(read.train), read.origin) == (1, None)  # nothing to read again
