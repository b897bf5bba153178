import json
from pathlib import Path

import pytest

from nlora.data.columns import named, parse_columns
from nlora.data.files import task_from_files
from nlora.data.messages import conversation
from nlora.data.reading import Reading
from nlora.data.rows import Rows, stop
from nlora.errors import NloraError


@pytest.fixture
def read(tmp_path):
    """Reads rows as a task that is only tested: its examples as pairs, and the notes."""

    def call(*rows, **reading):
        labels = reading.pop("labels", None)
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        data = task_from_files("a", None, path, labels=labels, reading=Reading(**reading))
        return [(e.text, e.label) for e in data.test], " ".join(data.notes), data.task

    return call


def problem(read, *rows, **reading):
    with pytest.raises(NloraError) as caught:
        read(*rows, **reading)
    return str(caught.value)


@pytest.mark.parametrize("text", ["Text", "SENTENCE", "content", "Review", "question", "tweet"])
@pytest.mark.parametrize("label", ["Label", "labels", "target", "Answer", "output", "completion"])
def test_obvious_names_are_found_and_told(read, text, label):
    found, notes, _ = read({"id": 1, text: "t", label: "l"})
    assert found == [("t", "l")]
    assert f"text is '{text}', label is '{label}'" in notes


@pytest.mark.parametrize("text", ["text", "sentence"])
def test_the_plain_names_are_taken_without_a_word(read, text):
    found, notes, _ = read({text: "t", "label": "l", "Review": "r", "answer": "a"})
    assert (found, notes) == ([("t", "l")], "")


def test_rows_may_have_either_of_the_plain_names(read):
    rows = [{"text": "t", "Label": "l"}, {"sentence": "s", "Label": "l"}]
    assert read(*rows)[0] == [("t", "l"), ("s", "l")]
    assert "has both" in problem(read, {**rows[0], **rows[1]})


@pytest.mark.parametrize(
    "pair",
    ["premise hypothesis", "sentence1 sentence2", "Sentence_1 Sentence_2", "question1 question2"],
)
def test_a_pair_is_one_text_with_the_names_of_both(read, pair):
    first, second = pair.split()
    found, notes, _ = read({second: "B", first: "A", "label": "x"})
    assert found == [(f"{first}: A\n{second}: B", "x")]
    assert f"'{first}' and '{second}'" in notes
    assert "'" + second + "' is empty" in problem(read, {second: "", first: "A", "label": "x"})


def test_a_question_with_its_context(read):
    assert read({"context": "C", "question": "Q", "answer": "A"})[0] == [
        ("question: Q\ncontext: C", "A")
    ]
    qnli = {"question": "Q", "sentence": "S", "label": "A"}
    found, notes, _ = read(qnli)
    assert found == [("question: Q\nsentence: S", "A")]
    assert "'question' and 'sentence'" in notes
    assert read(qnli | {"text": "t"}, columns={"text": "text"})[0] == [("t", "A")]
    del qnli["sentence"]
    assert read(qnli | {"text": "t"})[0] == [("t", "A")]


def test_columns_that_are_named_win_whatever_their_case(read):
    row = {"text": "t", "label": "l", "Title": "T", "body": "b", "stars": 5, "a+b": "plus"}
    found, notes, _ = read(row, columns={"text": "title+body", "label": "Stars"})
    assert (found, notes) == ([("Title: T\nbody: b", "5")], "")
    assert read(row, columns={"text": "a+b"})[0] == [("plus", "l")]
    assert read(row, columns={"label": "stars"})[0] == [("t", "5")]


def test_a_column_that_is_not_there_is_named_once(read):
    rows = [{"txt": "a", "class_": "b"}] * 9
    said = problem(read, *rows)
    assert "line 1: no 'text' or 'sentence' and no 'label'; it has: txt, class_; say which" in said
    assert "\n" not in said
    assert "did you mean 'txt'" in problem(read, *rows, columns={"text": "text", "label": "class_"})


def test_a_row_without_the_column_is_named_with_its_line(read):
    assert "line 2: no 'Review'; it has: Label" in problem(
        read, {"Review": "a", "Label": "b"}, {"Label": "b"}
    )
    assert "line 2: an example must be an object" in problem(read, {"Review": "a", "Label": "b"}, 1)


def test_numbers_get_their_names_which_are_the_labels(read):
    rows = [{"text": "a", "label": 0}, {"text": "b", "label": "good"}, {"text": "c", "label": 1.0}]
    found, _, task = read(*rows, label_names=["bad", "good"])
    assert [label for _, label in found] == ["bad", "good", "good"]
    assert task.labels == ("bad", "good")
    assert read(*rows, label_names=["bad", "good"], labels=["good", "bad"])[2].labels[0] == "good"
    for label, said in ((2, "there are 2 names"), (-1, "is empty"), ("so", "neither a name")):
        message = problem(read, {"text": "a", "label": label}, label_names=["bad", "good"])
        assert "line 1: " in message
        assert said in message


def test_numbers_that_may_be_names_themselves_are_refused(read):
    rows = [{"text": "a", "label": 1}, {"text": "b", "label": "2"}]
    said = problem(read, *rows, label_names=["1", "2", "3"])
    assert "label 1 may be the name '1' or the number of '2'; if the labels are names" in said
    found, _, _ = read({"text": "c", "label": 0}, *rows, label_names=["1", "2", "3"])
    assert [label for _, label in found] == ["1", "2", "3"]
    assert read(*rows, label_names=["0", "1", "2"])[0] == [("a", "1"), ("b", "2")]


def test_labels_of_the_data(read):
    rows = [{"text": str(i), "label": label} for i, label in enumerate("bab")]
    assert read(*rows)[2].labels is None
    assert read(*rows, labels_from_data=True)[2].labels == ("a", "b")
    many = [{"text": str(i), "label": f"answer {i}"} for i in range(300)]
    assert "300 different labels" in problem(read, *many, labels_from_data=True)


def test_chats_and_instructions_are_left_to_their_reader(read):
    assert "the chat has no turns" in problem(read, {"messages": []})
    [(text, label)], notes, task = read({"Instruction": "a", "output": "b", "text": "c"})
    assert (conversation(text)[-1]["content"], label, notes) == ("a", "b", "")
    assert task.chat
    for row in (
        {"messages": [], "answer": "b"},
        {"conversations": [], "answer": "b"},
        {"Instruction": "a", "output": "b", "question": "c"},
        {"prompt": "a", "completion": "b", "content": "c"},
    ):
        rows = Rows(Path("a"), [row], str)
        assert named(rows, {}, None, stop) == (rows, [], None)
        assert named(rows, {"text": next(iter(row))}, None, stop)[0] != rows


@pytest.mark.parametrize("text", ["review", "text=a,text=b", "txt=a", "text="])
def test_columns_on_the_command_line(text):
    with pytest.raises(NloraError):
        parse_columns(text)
    assert parse_columns("text=a, label=b") == {"text": "a", "label": "b"}


def test_a_table_whose_first_row_is_no_header_is_asked_about(tmp_path):
    path = tmp_path / "news.csv"
    path.write_text("3,Wall Street,Bears claw back\n")
    path.write_text(path.read_text() * 2)
    with pytest.raises(NloraError, match=r"line 1: .*: 3, Wall Street, Bears claw back") as error:
        task_from_files("a", None, path)
    assert "if the file has no header, add one, e.g. text,label, else say which" in str(error.value)
    path.write_text(path.read_text().replace(",", "\t"))
    with pytest.raises(NloraError, match=r"add one, e\.g\. text\\tlabel"):
        task_from_files("a", None, path)
    path.write_text("good,good\nreally bad,bad\n")
    with pytest.raises(NloraError, match=r"are called 'good'.* if the file has no header"):
        task_from_files("a", None, path)


def test_a_column_that_is_only_called_as_chats_are_does_not_matter(read):
    row = {"messages": "12", "Text": "t", "Label": "l"}
    assert read(row)[0] == [("t", "l")]


def test_a_label_beside_a_chat_is_said_not_to_be_read(read):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    found, notes, _ = read({"messages": turns, "label": "l"})
    assert found[0][1] == "a"
    assert "line 1: is a chat, of which the last answer is learned and 'label' is not read" in notes
    assert not read({"messages": turns})[1]
