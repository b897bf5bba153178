"""`nlora predict`: texts from a file or standard input, a JSON object a line."""

import json

import pytest

from tests.runs import read_jsonl


@pytest.fixture
def model_dir(finished):
    return finished("inc-lora").out


def test_texts_of_every_kind_of_file_have_the_same_answers(nlora, model_dir, tmp_path):
    texts = ["xxx 1", "yyy, 2", "zzz 3"]
    files = {
        "t.txt": "xxx 1\r\n\nyyy, 2\nzzz 3",
        "t.jsonl": "".join(json.dumps({"sentence": t, "id": 7}) + "\n" for t in texts),
        "t.json": json.dumps(texts),
        "t.csv": 'id,text\n1,xxx 1\n2,"yyy, 2"\n3,zzz 3\n',
    }
    shown = set()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content.encode())
        done = nlora("predict", model_dir, tmp_path / name, "--task", "animal")
        assert done.exit_code == 0, done.stderr
        shown.add(done.stdout)
    (only,) = shown
    rows = [json.loads(line) for line in only.splitlines()]
    assert [(row["text"], row["task"]) for row in rows] == [(text, "animal") for text in texts]
    assert all(row["answer"] in row["probabilities"] for row in rows)
    assert [sum(row["probabilities"].values()) for row in rows] == pytest.approx([1.0] * 3)
    free = nlora("predict", model_dir, tmp_path / "t.txt", "--task", "animal", "--free")
    assert [set(json.loads(line)) for line in free.stdout.splitlines()] == [
        {"text", "task", "answer", "confidence", "unknown"}
    ] * 3
    out = tmp_path / "new" / "answers.jsonl"
    done = nlora("predict", model_dir, tmp_path / "t.txt", "--task", "animal", "--out", out)
    assert (done.exit_code, done.stdout) == (0, "")
    assert read_jsonl(out) == rows


def test_a_chat_is_shown_beside_its_answer(nlora, llama, tmp_path):
    turns = [{"role": "user", "content": "xxx"}, {"role": "assistant", "content": "a"}]
    for name in ("train", "test"):
        rows = [{"messages": [{**turns[0], "content": f"{name} {i}"}, turns[1]]} for i in range(4)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    (tmp_path / "stream.yaml").write_text("- {name: c, train: train.jsonl, test: test.jsonl}")
    options = ["--model", llama, "--method", "inc-lora", "--set", "precision=fp32"]
    run = ["run", "--stream", tmp_path / "stream.yaml", *options]
    seen = nlora(*run, "--dry-run", "--set", "max_new_tokens=1")
    assert "User: train 0\nAssistant: a</s>\ncounts in the loss: ' ' 'a' '</s>'" in seen.stdout
    assert "100% of its answers are longer than max_new_tokens (1)" in seen.stdout
    assert nlora(*run, "--out", tmp_path / "out").exit_code == 0
    ask = tmp_path / "ask.jsonl"
    ask.write_text(json.dumps({"messages": turns[:1]}) + '\n{"text": "yyy"}\n')
    rows = [json.loads(x) for x in nlora("predict", tmp_path / "out", ask).stdout.splitlines()]
    assert rows[0]["messages"] == turns[:1]
    assert "text" not in rows[0]
    assert rows[1]["text"] == "yyy"


def test_standard_input_is_read_by_lines(nlora, model_dir):
    done = nlora("predict", model_dir, "-", "--task", "colour", input="xxx 1\n\n \nyyy 2\n")
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["xxx 1", "yyy 2"]
    assert "-: 2 of 4 lines are blank and left out (2, 3)" in done.stderr
    whole = nlora("predict", model_dir, "-", "--task", "colour", input="xxx 1\nyyy 2\n")
    assert "blank" not in whole.stderr


def test_texts_may_stand_on_the_command_line(nlora, model_dir):
    given = nlora("predict", model_dir, "--text", "xxx 1", "--text", "yyy 2", "--task", "colour")
    read = nlora("predict", model_dir, "-", "--task", "colour", input="xxx 1\nyyy 2\n")
    assert given.stdout == read.stdout != ""


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.jsonl", '{"text": "a"}\n{"label": "b"}\n', "line 2: no 'text' or 'sentence'; it has:"),
        ("t.json", '["a", ["b"]]', "example 2: 'text' must be text"),
        ("t.csv", "text,label\n", "no texts"),
        ("t.txt", " \n", "the file is empty"),
        ("t.pdf", "a", "neither JSON nor"),
    ],
)
def test_a_bad_file_is_one_line(refused, model_dir, tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    assert said in refused("predict", model_dir, tmp_path / name, "--task", "colour")


def test_bad_paths_are_one_line(refused, model_dir, tmp_path):
    (tmp_path / "t.txt").write_text("a")
    line = refused("predict", model_dir, tmp_path / "none.txt")
    assert "no such file" in line
    assert line.endswith("none.txt; a text itself is given by --text")
    assert "either a file of texts or --text" in refused("predict", model_dir)
    assert "either a file" in refused("predict", model_dir, tmp_path / "t.txt", "--text", "a")
    assert f"{tmp_path} holds no model" in refused("predict", tmp_path, tmp_path / "t.txt")
    assert "holds no model" in refused("predict", tmp_path / "none", tmp_path / "t.txt")
    exported = tmp_path / "exported"
    exported.mkdir()
    (exported / "config.json").write_text("{}")
    line = refused("predict", exported, tmp_path / "t.txt")
    assert f"{exported} is a Transformers model and no model directory" in line
    assert f"--model {exported}" in line
    line = refused("predict", model_dir, tmp_path / "t.txt", "--out", tmp_path)
    assert "is a folder" in line
    for place in ("/proc/none/answers.jsonl", tmp_path / "t.txt" / "answers.jsonl"):
        line = refused("predict", model_dir, tmp_path / "t.txt", "--out", place)
        assert line.startswith(f"error: --out {place}: ")
        assert "stages stand" not in line
