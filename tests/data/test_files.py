import json
from pathlib import Path

import pytest

from nlora.data.files import read_entry, read_stream, task_from_files
from nlora.errors import NloraError

ENTRY = "- name: kettles\n  train: train.jsonl\n  test: test.csv\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [{"text": "A fine kettle.", "label": "yes"}, {"text": "It leaks.", "label": "no"}]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "test.csv").write_text('sentence,label\n"Fast, and quiet.",yes\n')
    return tmp_path


def stream(folder: Path, text: str) -> Path:
    path = folder / "stream.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def stream_problem(folder: Path, text: str) -> str:
    return problem_of(read_stream, stream(folder, text))


def train_problem(folder: Path, name: str, content: str | bytes, labels=None) -> str:
    data = content.encode() if isinstance(content, str) else content
    (folder / name).write_bytes(data)
    return problem_of(task_from_files, "kettles", folder / name, folder / "test.csv", labels=labels)


def problem_of(read, *args, **kwargs) -> str:
    with pytest.raises(NloraError) as caught:
        read(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


def test_an_entry_with_all_keys(folder):
    text = ENTRY + (
        "  dev: test.csv\n"
        "  instruction: |\n    Is it good? Choose one from the option.\n"
        "  labels: [yes, no, 1, 1.50, ~x]\n"
        "- {name: second, train: test.csv, test: train.jsonl}\n"
    )
    first, second = read_stream(stream(folder, text))
    assert (first.task.name, first.task.group, first.task.dataset) == ("kettles", "", "kettles")
    assert first.task.instruction == "Is it good? Choose one from the option."
    assert [(e.text, e.label) for e in first.train] == [
        ("A fine kettle.", "yes"),
        ("It leaks.", "no"),
    ]
    assert [e.text for e in first.dev] == ["Fast, and quiet."]
    assert (second.name, second.task.instruction, second.dev) == ("second", None, ())


def test_labels_stay_the_text_that_the_user_wrote(folder):
    labels = "[yes, no, on, 1, 2.50, 0x1F, 2024-01-31, null, ~x]"
    (task_data,) = read_stream(stream(folder, ENTRY + f"  labels: {labels}\n"))
    expected = ("yes", "no", "on", "1", "2.50", "0x1F", "2024-01-31", "null", "~x")
    assert task_data.task.labels == expected


def test_row_labels_stay_the_text_that_the_user_wrote(folder):
    lines = ['{"text": "a", "label": 1}', '{"text": "b", "label": 2.50}']
    (folder / "n.jsonl").write_text("\n".join([*lines, '{"text": "c", "label": true}']))
    (folder / "n.csv").write_text("text,label\na,01\n")
    task_data = task_from_files("n", folder / "n.jsonl", folder / "n.csv")
    assert [e.label for e in task_data.train] == ["1", "2.50", "true"]
    assert [e.label for e in task_data.test] == ["01"]


def test_without_labels_answers_are_free_text(folder):
    (task_data,) = read_stream(stream(folder, ENTRY + "  labels:\n  instruction: null\n  dev: ~\n"))
    assert task_data.task.labels is None
    assert task_data.task.instruction is None
    assert task_data.dev == ()


def test_paths_are_relative_to_the_yaml_file(folder, monkeypatch):
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    path = stream(folder, ENTRY)
    assert read_stream(path)[0].name == "kettles"
    assert read_stream(Path("..") / path.name)[0].name == "kettles"


def test_one_entry_is_a_mapping_or_a_list_of_one(folder):
    mapping = "name: kettles\ntrain: train.jsonl\ntest: test.csv\n"
    assert read_entry(stream(folder, mapping)).name == "kettles"
    assert read_entry(stream(folder, ENTRY)).name == "kettles"
    assert "list of 2" in problem_of(read_entry, stream(folder, ENTRY + ENTRY))
    assert "no task" in problem_of(read_entry, stream(folder, "# nothing\n"))


def test_a_csv_text_may_hold_commas_quotes_line_breaks_and_be_long(folder):
    text = 'Said "fine",\r\nthen\nleft. ' + "x" * 200_000
    quoted = text.replace('"', '""')
    (folder / "a.csv").write_bytes(f'\ufeffid, text,label\r\n7,"{quoted}",no\r\n'.encode())
    task_data = task_from_files("a", folder / "a.csv", folder / "test.csv")
    assert [(e.text, e.label) for e in task_data.train] == [(text, "no")]


def test_a_jsonl_text_may_hold_unicode_line_separators(folder):
    (folder / "a.jsonl").write_text(
        '\ufeff{"text": "one\u2028two\x85", "label": "x"}\r\n\n', encoding="utf-8"
    )
    task_data = task_from_files("a", folder / "a.jsonl", folder / "test.csv")
    assert [e.text for e in task_data.train] == ["one\u2028two\x85"]


def test_an_array_in_the_benchmarks_form_works_too(folder):
    (folder / "a.json").write_text('[{"sentence": "One.", "label": "x"}]')
    assert task_from_files("a", folder / "a.json", folder / "test.csv").train[0].text == "One."


@pytest.mark.parametrize(
    ("name", "content", "where", "what"),
    [
        ("a.jsonl", '{"text": "a", "label": "x"}\n\n{"text": }\n', "line 3, column 10", "malform"),
        ("a.jsonl", '{"text": "a", "label": "x"}\n[1]\n', "line 2", "must be an object"),
        ("a.jsonl", '{"txt": "a", "label": "x"}\n', "line 1", "no 'text' or 'sentence'"),
        ("a.jsonl", '{"text": "a"}\n', "line 1", "no 'label'; it has: text"),
        ("a.jsonl", '{"text": "a", "label": NaN}\n', "line 1", "'label' is empty"),
        ("a.jsonl", '{"text": "a", "label": {}}\n', "line 1", "'label' must be text"),
        ("a.jsonl", '{"text": "a", "sentence": "b", "label": "x"}', "line 1", "has both"),
        ("a.jsonl", b'{"text": "a", "label": "x"}\n\xff', "line 2", "not UTF-8"),
        ("a.jsonl", "\n", "a.jsonl", "empty"),
        ("a.csv", "", "a.csv", "empty"),
        ("a.csv", "text,label\n", "a.csv", "no examples"),
        ("a.csv", 'text,label\n"a\nb",x\n\nc,d,x\n', "line 5", "3 cells, the header 2"),
        ("a.csv", 'text,label\na,x\n"b,x\nc,x\n', "line 3", "malformed CSV"),
        (
            "a.csv",
            "one;two\na;x\n",
            "line 1",
            "if the file has no header, add one, e.g. text;label",
        ),
        ("a.csv", 'text,label\n"a\nb",x\n ,x\n', "line 4", "'text' is empty"),
        ("a.txt", "a", "a.txt", "neither JSON nor"),
    ],
)
def test_a_bad_file_is_reported_with_its_line(folder, name, content, where, what):
    message = train_problem(folder, name, content)
    assert f"{folder / name}" in message
    assert where in message
    assert what in message


def test_a_row_label_must_be_one_of_the_labels(folder):
    message = train_problem(folder, "a.csv", "text,label\na,yes\nb,Yes\n", labels=["yes", "no"])
    assert "a.csv, line 3: unknown label 'Yes'; did you mean 'yes'?" in message
    lines = '{"text": "a", "label": 1.0}'
    message = train_problem(folder, "a.jsonl", lines, labels=["1", "yes"])
    assert "line 1: unknown label '1.0'" in message


def test_a_missing_file_is_named(folder):
    message = problem_of(task_from_files, "a", folder / "none.csv", folder / "test.csv")
    assert message == f"no such file: {folder / 'none.csv'}"
    entry = ENTRY.replace("train.jsonl", "~no-such-user/a.csv")
    assert "no such file" in stream_problem(folder, entry)
    assert "none.yaml" in problem_of(read_stream, folder / "none.yaml")
    assert "cannot read" in problem_of(read_stream, folder)


def test_yaml_that_is_nested_without_end_is_one_line(folder):
    assert "nested too deeply" in stream_problem(folder, "[" * 1500)


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("a: [1\n", 2, "malformed YAML"),
        ("- name: a\n  train: \x07\n", 2, "malformed YAML"),
        ("- name: a\n", 1, "no 'test', and no 'train'"),
        ("- just text\n", 1, "must have keys"),
        (ENTRY + "  instructions: Which?\n", 4, "unknown key 'instructions'; did you mean 'instr"),
        (ENTRY + "  ? [a, b]\n  : c\n", 4, "unknown key"),
        (ENTRY + "  name: b\n", 4, "a second 'name'"),
        (ENTRY + "  dev: [a, b]\n", 4, "'dev' must be text"),
        (ENTRY + "  labels: good, bad\n", 4, "must be a list"),
        (ENTRY + "  labels: [good, [bad]]\n", 4, "a label must be text"),
        (ENTRY + "  labels: [good, good]\n", 1, "stands there twice"),
        (ENTRY + "  labels: []\n", 1, "no labels"),
        (ENTRY + ENTRY, 4, "task 'kettles' is also in"),
        (ENTRY.replace("kettles", "../kettles"), 1, "cannot name a task"),
        (ENTRY.replace("kettles", ""), 1, "no 'name'"),
    ],
)
def test_a_bad_stream_is_reported_with_its_line(folder, text, line, what):
    message = stream_problem(folder, text)
    assert f"stream.yaml, line {line}: " in message
    assert what in message


@pytest.mark.parametrize("text", ["name: a\n", "[]\n", "# nothing\n", "just text\n"])
def test_a_stream_is_a_list(folder, text):
    assert "a stream is a YAML list" in stream_problem(folder, text)
