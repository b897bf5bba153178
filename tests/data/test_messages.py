"""Every form of chats and instructions becomes the same conversation; what is wrong is one line."""

import json

import pytest

from nlora.data.files import read_texts, task_from_files
from nlora.data.messages import agreed, asked, conversation, plain, read_asked, read_chat
from nlora.data.task import Example, Task, TaskData
from nlora.errors import NloraError

TASK = Task("chats", "Be brief.")
SYSTEM, ASKS, SAYS = (
    {"role": "system", "content": "Rhyme."},
    {"role": "user", "content": "a cat?"},
    {"role": "assistant", "content": "a hat"},
)
MORE = {"role": "user", "content": "a dog?"}
ANSWER = {"role": "assistant", "content": "a frog"}
WHOLE = [SYSTEM, ASKS, SAYS, MORE, ANSWER]


def read(row, task=TASK):
    """The turns that a row is asked by, and its answer."""
    found, chats = read_chat(row, task)
    assert chats.chat
    return asked(chats, found["text"]), found["label"]


def test_messages_are_asked_up_to_the_last_answer():
    assert read({"messages": WHOLE}) == (WHOLE[:4], "a frog")
    assert read({"messages": [*WHOLE, {"role": "user", "content": "thanks"}]}) == read(
        {"Messages": WHOLE}
    )


@pytest.mark.parametrize(
    "row",
    [
        {
            "conversations": [
                {"from": "system", "value": "Rhyme."},
                {"from": "human", "value": "a cat?"},
                {"from": "gpt", "value": " a hat\n"},
                {"from": "human", "value": "a dog?"},
                {"from": "gpt", "value": "a frog"},
            ]
        },
        {
            "conversations": [
                {"from": "human", "value": "a cat?"},
                {"from": "gpt", "value": "a hat"},
                {"from": "human", "value": "a dog?"},
                {"from": "gpt", "value": "a frog"},
            ],
            "system": "Rhyme.",
        },
        {
            "messages": [
                SYSTEM,
                {"role": "user", "content": [{"type": "text", "text": "a "}, {"text": "cat?"}]},
                SAYS,
                MORE,
                ANSWER,
            ],
            "text": "written out",
        },
        {"messages": json.dumps(WHOLE)},
        {
            "instruction": "a dog?",
            "input": "",
            "output": "a frog",
            "history": [["a cat?", "a hat"]],
            "system": "Rhyme.",
        },
    ],
)
def test_other_forms_are_the_same_conversation(row):
    assert read(row) == (WHOLE[:4], "a frog")


def test_an_instruction_of_a_row_wins_over_the_tasks():
    row = {"instruction": "Rhyme.", "input": "cat", "output": "hat"}
    assert read(row) == ([{"role": "user", "content": "Rhyme.\n\ncat"}], "hat")
    assert read({"messages": WHOLE})[0][0] == SYSTEM
    own = [{"role": "system", "content": "Be brief."}, ASKS]
    assert read({"messages": [ASKS, SAYS]}) == (own, "a hat")
    assert read({"prompt": "a cat?", "completion": "a hat"}) == (own, "a hat")


def test_of_a_prompt_with_its_completion_the_completion_alone_is_learned():
    turns, answer = read({"prompt": WHOLE[:4], "completion": [ANSWER]})
    assert answer == "a frog"
    assert [turn.get("weight") for turn in turns] == [None, None, 0, None]


def test_a_prompt_or_completion_may_be_json_that_is_no_chat():
    text = '[{"name": "a cat"}, {}]'
    turns, answer = read({"prompt": text, "completion": text}, Task("chats"))
    assert (turns, answer) == ([{"role": "user", "content": text}], text)
    with pytest.raises(NloraError, match="no JSON"):  # as pandas writes a list into a CSV file
        read({"prompt": str([ASKS]), "completion": "a hat"})


def test_a_turn_of_weight_0_is_not_learned():
    turns, answer = read({"messages": [*WHOLE[:4], ANSWER | {"weight": "0"}]})
    assert (turns, answer) == (WHOLE[:2], "a hat")
    turns, answer = read({"messages": [SYSTEM, ASKS, SAYS | {"weight": 0}, MORE, ANSWER]})
    assert turns[2]["weight"] == 0


@pytest.mark.parametrize(
    "row",
    [
        {"text": "a", "label": "b"},
        {"text": "a", "label": "b", "messages": WHOLE},
        {"instruction": "a"},
        {"prompt": "a"},
        "a text",
    ],
)
def test_rows_that_are_no_chats_stay_as_they_are(row):
    assert read_chat(row, TASK) == (row, TASK)


@pytest.mark.parametrize(
    ("turns", "words"),
    [
        ([ASKS, {"role": "asistant", "content": "a"}], "turn 2: unknown role 'asistant'; did you"),
        ([ASKS, {"role": "assistant", "content": " "}], r"turn 2 \(assistant\) is empty"),
        ([ASKS, {"role": "assistant", "content": {"a": 1}}], r"turn 2 \(assistant\) must be text"),
        ([ASKS, {"content": "a"}], "turn 2 has no 'role'"),
        ([ASKS, "a"], "turn 2 must be an object"),
        ([ASKS, {"role": "assistant", "content": None, "tool_calls": [1]}], "turn 2 calls a tool"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "part of type 'image_url'"),
        ([SYSTEM, ASKS], "no turn of the assistant"),
        ([SYSTEM, SAYS], "nothing is asked"),
        ([], "has no turns"),
    ],
)
def test_what_is_wrong_is_one_line_with_file_and_row(tmp_path, turns, words):
    path = tmp_path / "chats.jsonl"
    rows = [{"messages": WHOLE}, {"messages": turns}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (whole := tmp_path / "test.jsonl").write_text(json.dumps(rows[0]))
    with pytest.raises(NloraError, match=rf"chats.jsonl, line 2: .*{words}") as error:
        task_from_files("chats", path, whole)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"input": {"a": 1}}, "'input' must be text"),
        ({"input": None, "context": ["a"]}, "'context' must be text"),
        ({"history": "a? b"}, "'history' must be a list"),
    ],
)
def test_nothing_of_an_instruction_is_left_out_without_a_word(more, words):
    with pytest.raises(NloraError, match=words):
        read_chat({"instruction": "a dog?", "output": "a log"} | more, TASK)
    row = {"instruction": "a dog?", "output": "a log", "input": "", "history": "[]"}
    assert read_chat(row | {"history": '[["a cat?", "a hat"]]'}, TASK) == read_chat(
        row | {"history": [["a cat?", "a hat"]]}, TASK
    )
    assert read_chat(row, TASK) == read_chat(row | {"history": " "}, TASK)


def test_chats_of_a_file_make_its_task_one_of_chats(tmp_path):
    path, texts = tmp_path / "chats.json", tmp_path / "test.jsonl"
    path.write_text(json.dumps([{"messages": WHOLE}]))
    texts.write_text('{"text": "a cow?", "label": "a bough"}\n')
    data = task_from_files("chats", path, texts)
    assert data.task.chat
    assert {e.task for e in (*data.train, *data.test)} == {data.task}
    assert asked(data.task, data.test[0].text) == [{"role": "user", "content": "a cow?"}]
    assert data.task == Task.from_json(json.loads(json.dumps(data.task.to_json())))


def test_a_task_without_chats_has_the_fingerprint_that_it_had():
    task = Task("news", None, ("a", "b"))
    data = TaskData(task, (Example(task, "x", "a"),), (Example(task, "y", "b"),))
    assert agreed(data) is data
    assert "chat" not in task.to_json()
    assert data.fingerprint() == "b685187bae4a56e4"


def test_labels_of_chats_are_checked(tmp_path):
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps({"messages": WHOLE}))
    with pytest.raises(NloraError, match="line 1: unknown label 'a frog'"):
        task_from_files("chats", None, path, labels=["a hat", "a log"])


def test_texts_to_be_answered_may_be_chats(tmp_path):
    path = tmp_path / "ask.jsonl"
    rows = [{"messages": WHOLE[:4]}, {"instruction": "a dog?"}, {"prompt": "a dog?"}, {"text": "a"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    chat = Task("chats", "Be brief.", chat=True)
    turns = [asked(chat, text) for text in read_texts(path)]
    brief = {"role": "system", "content": "Be brief."}
    ask = {"role": "user", "content": "a"}
    assert turns == [WHOLE[:4], [MORE], [brief, MORE], [brief, ask]]
    path.write_text(json.dumps({"messages": WHOLE}))
    with pytest.raises(NloraError, match=r"ask.jsonl, line 1: .* does not end with a user's turn"):
        read_texts(path)


def test_what_is_asked_of_a_row_is_what_would_be_learned_of_it(tmp_path):
    alpaca = {"instruction": "a dog?", "input": "", "output": "a log", "text": "a dog? a log"}
    rows = [alpaca, {"text": "t", "messages": WHOLE[:4]}, {"text": "t", "instruction": "a"}]
    rows.append({"text": "t", "label": "l", "messages": WHOLE})
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, *rest = read_texts(path)
    assert asked(Task("chats", chat=True), first) == [MORE]
    assert first == read_chat(alpaca, TASK)[0]["text"]
    assert [conversation(text) or text for text in rest] == [WHOLE[:4], "t", "t"]


@pytest.mark.parametrize("indent", [None, 1])
def test_a_file_of_one_chat_is_asked_as_one(tmp_path, indent):
    path = tmp_path / "ask.json"
    path.write_text(json.dumps({"messages": WHOLE[:4]}, indent=indent))
    assert [conversation(text) for text in read_texts(path)] == [WHOLE[:4]]
    mails = [{"from": "a", "content": "b"}]
    path.write_text(json.dumps({"messages": mails}, indent=indent))
    assert read_texts(path) == ("b",)


def test_a_text_that_looks_like_a_list_is_a_text():
    for text in ('[{"role": "user"', '[{"role": "user", "content": 3}]', '[{"role": 1}]', "[1]"):
        assert conversation(text) is None
        assert plain(text) == text
    assert plain(read_asked({"messages": WHOLE[:2]})["text"]) == "Rhyme.\na cat?"


def test_lists_without_end_in_a_text_are_no_chat():
    deep = '[{"role": ' + "[" * 200_000
    assert conversation(deep) is None
    with pytest.raises(NloraError, match="no JSON"):
        read_chat({"messages": deep}, TASK)
