"""Files of chats are learned, tested, kept and answered like any other task."""

import json
import shutil

import pytest
import yaml

from nlora.continual.answering import predict
from nlora.continual.learning import learn, run
from nlora.continual.preview import preview
from nlora.data.files import read_texts, task_from_files
from nlora.errors import NloraError
from nlora.plan.resolve import resolve
from tests import tiny
from tests.data.test_chat import CHATML, chatty
from tests.runs import FAST, LEARNING, THOROUGH, config, read_jsonl, write_task

ANSWERS = {"x": "ab", "y": "cd", "z": "ef"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model with a chat template, whose turns end otherwise than its texts do."""
    folder = tmp_path_factory.mktemp("chatty")
    net = tiny.model("llama")
    net.resize_token_embeddings(264, mean_resizing=False)
    net.lm_head.weight.data.mul_(30)
    net.save_pretrained(folder)
    chatty().save_pretrained(folder)
    return folder


def chat(letter, number, turns=1):
    """A chat in which each answer follows from a letter of its question."""
    found = []
    for turn in range(turns):
        found.append({"role": "user", "content": f"{letter * 3} {number + turn}"})
        found.append({"role": "assistant", "content": ANSWERS[letter]})
    return {"messages": found}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    """A task of chats, and one of texts with labels."""
    folder = tmp_path_factory.mktemp("stream")
    write(folder / "train.jsonl", [chat("xyz"[i % 3], i, 1 + i % 2) for i in range(24)])
    write(folder / "test.jsonl", [chat("xyz"[i % 3], 100 + i) for i in range(6)])
    chats = {"name": "chats", "train": "train.jsonl", "test": "test.jsonl"}
    path = folder / "stream.yaml"
    path.write_text(yaml.safe_dump([chats, write_task(folder, "colour", 24)]))
    return path


@pytest.fixture(scope="module")
def trained(model, stream, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "model"
    run(config(model, stream, LEARNING, method="per-task"), out)
    return out


def test_chats_are_learned_beside_texts_and_their_ends_end_answers(trained):
    results = json.loads((trained / "results.json").read_text())
    assert results["accuracy_matrix"][0][0] == 100
    rows = read_jsonl(trained / "stages" / "001-chats" / "predictions.jsonl")
    assert {row["text"] for row in rows} == set(ANSWERS.values())
    kept = read_jsonl(trained / "stages" / "001-chats" / "test.jsonl")
    assert json.loads(kept[0]["text"])[-1] == {"role": "user", "content": "xxx 100"}


def test_chats_and_plain_texts_are_answered(trained, tmp_path):
    rows = [{"messages": chat("y", 7, 2)["messages"][:3]}, {"text": "zzz 5"}, {"prompt": "xxx 1"}]
    found = predict(trained, read_texts(write(tmp_path / "ask.jsonl", rows)), "chats")
    assert [answer.answer for answer in found] == ["cd", "ef", "ab"]


def test_chats_with_labels_are_answered_by_one_of_them(model, tmp_path):
    path = write(tmp_path / "chats.jsonl", [chat("xyz"[i % 3], i) for i in range(24)])
    test = write(tmp_path / "test.jsonl", [chat("xyz"[i], 70 + i) for i in range(3)])
    task = task_from_files("chats", path, test, labels=list(ANSWERS.values()))
    results = learn(tmp_path / "out", task, config(model, None, THOROUGH))
    assert results["accuracy_matrix"] == [[100]]
    [answer] = predict(tmp_path / "out", ["yyy 50"])
    assert answer.answer == "cd"
    assert set(answer.probabilities) == set(ANSWERS.values())
    assert answer.probabilities["cd"] > 0.9


def test_a_chat_of_a_task_of_texts_is_refused_before_a_model_is_loaded(trained, monkeypatch):
    monkeypatch.setattr("nlora.continual.building.load", lambda *args: pytest.fail("was loaded"))
    chats = [json.dumps(chat("x", 1)["messages"])]
    with pytest.raises(NloraError, match="example 1 is a chat, and 'colour' was trained on single"):
        predict(trained, chats, "colour")
    with pytest.raises(NloraError, match=r"which task\? name one of chats, colour"):
        predict(trained, chats)


def test_a_dry_run_shows_which_parts_count(model, stream):
    alone = stream.parent / "alone.yaml"
    alone.write_text(yaml.safe_dump(yaml.safe_load(stream.read_text())[:1]))
    found = preview(resolve(config(model, alone, FAST)))
    assert found.notes == []
    first, second = found.examples
    assert [text for text, counts in first.spans if counts] == ["ab<|im_end|>"]
    assert [text for text, counts in second.spans if counts] == ["cd<|im_end|>"] * 2
    assert second.prompt == second.spans[0][0]
    [note] = preview(resolve(config(model, alone, {**FAST, "max_new_tokens": 2}))).notes
    assert note.startswith("task 'chats': 100% of its answers are longer than max_new_tokens (2)")


def test_instructions_are_learned_by_an_encoder_decoder(t5, tmp_path):
    rows = [
        {"instruction": "Which letter?", "input": c * 3, "output": ANSWERS[c]} for c in "xyz" * 4
    ]
    files = [write(tmp_path / name, rows) for name in ("alpaca.jsonl", "test.jsonl")]
    results = learn(tmp_path / "out", task_from_files("alpaca", *files), config(t5, None))
    assert "alpaca" in str(results["tasks"])


@pytest.mark.parametrize("method", ["replay", "lfpt5", "l2p", "ewc", "lwf", "de-lora", "mtl"])
def test_methods_learn_chats(model, stream, tmp_path, method):
    results = run(config(model, stream, FAST, method=method, max_train=6, max_eval=3), tmp_path)
    assert results["average_accuracy"] is not None


def test_a_template_that_refuses_a_chat_stops_the_run_before_it_trains(model, stream, tmp_path):
    own = chatty(
        CHATML + "{% if messages | length > 2 %}{{ raise_exception('too many') }}{% endif %}"
    )
    shutil.copytree(model, tmp_path / "model")
    own.save_pretrained(tmp_path / "model")
    for start in (lambda c: run(c, tmp_path / "out"), lambda c: preview(resolve(c))):
        with pytest.raises(NloraError, match=r"train.jsonl, line 2: task 'chats', the chat that"):
            start(config(tmp_path / "model", stream))
    assert not (tmp_path / "out" / "stages").exists()
