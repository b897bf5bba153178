"""What later stages rehearse by the setting `replay`, with any method."""

import json
import shutil
from collections import Counter

import pytest
import torch

from nlora.continual.learning import learn as learn_task
from nlora.continual.learning import run
from nlora.continual.model import ContinualModel
from nlora.data.task import Example
from nlora.errors import NloraError
from nlora.methods.base import MixedIn
from nlora.methods.parts import neutral
from nlora.methods.registry import method
from nlora.store.directory import ModelDirectory
from nlora.store.state import read_state
from nlora.study.rows import row
from nlora.training.loop import together
from tests import runs, tiny
from tests.methods.helpers import TASKS, first_stages, learn, same_bits, stages

TEXTS = [f"A text of number {i}." for i in range(6)]
OWN = "own answers to neutral texts"
FEW = {"neutral_texts": 4, "replay": "self"}


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A file of neutral texts."""
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("\n".join(TEXTS), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def answered(llama, texts, tmp_path_factory):
    """A run that rehearses its own answers to neutral texts."""
    out = tmp_path_factory.mktemp("self") / "out"
    learn(llama, out, "seq-lora", neutral=str(texts), **FEW)
    return out


def kept(out, stage):
    """What was kept for rehearsal after a stage."""
    directory = ModelDirectory(out)
    folder = directory.stage_path(directory.stages()[stage - 1]) / "state"
    return read_state(folder, method("seq-lora").kind.State).rehearsal


def test_each_task_is_asked_of_the_same_texts_and_answers_by_its_labels(answered):
    for stage in (1, 2, 3):
        found = kept(answered, stage)
        assert len(set(found.texts)) == 4
        assert set(found.texts) <= set(TEXTS)
        assert [r["task"]["name"] for r in found.answers] == list(TASKS[:stage])
        labels = set(tiny.task().task.labels)
        assert all(set(r["answers"]) <= labels and len(r["answers"]) == 4 for r in found.answers)
        assert found.probabilities.keys() == set(TASKS[:stage])
    first, last = kept(answered, 1), kept(answered, 3)
    assert last.texts == first.texts
    assert last.answers[0] == first.answers[0]  # as it answered right after learning
    assert last.probabilities["colour"].equal(first.probabilities["colour"])


def test_what_is_kept_of_the_labels_are_their_exact_probabilities(answered, tmp_path):
    model = ContinualModel.open(first_stages(answered, 1, tmp_path / "out"))
    found, task = kept(answered, 1), tiny.task(TASKS[0]).task
    scores = [
        model.context().score([Example(task, text, label) for label in task.labels])
        for text in found.texts
    ]
    exact = torch.tensor(scores, dtype=torch.float64).softmax(1).float()
    torch.testing.assert_close(found.probabilities[TASKS[0]], exact, rtol=1e-4, atol=1e-6)


def test_later_stages_train_on_the_answers_and_their_records_say_so(answered):
    records = stages(answered)
    assert [r.examples for r in records] == [12, 12 + 4, 12 + 8]
    assert [r.notes.get("mixed_in") for r in records] == [
        None,
        {OWN: {"colour": 4}},
        {OWN: {"colour": 4, "size": 4}},
    ]
    assert not any("kept_examples" in r.notes for r in records)


def test_a_run_that_was_stopped_between_stages_goes_on_bit_for_bit(
    answered, llama, texts, tmp_path
):
    again = first_stages(answered, 1, tmp_path / "out")
    learn(llama, again, "seq-lora", neutral=str(texts), **FEW)
    assert same_bits(answered, again)
    for stage in (2, 3):
        ours, theirs = kept(answered, stage), kept(again, stage)
        assert ours.answers == theirs.answers
        assert all(p.equal(theirs.probabilities[n]) for n, p in ours.probabilities.items())


def test_learn_goes_on_without_the_file_of_texts(answered, tmp_path):
    shutil.copytree(answered, tmp_path / "out")
    directory = ModelDirectory(tmp_path / "out")
    document = directory.config()
    document["settings"]["neutral"] = str(tmp_path / "gone.txt")
    with directory.locked():
        directory.write_config(document)
    learn_task(tmp_path / "out", tiny.task("form", 12))
    assert stages(tmp_path / "out")[-1].notes["mixed_in"] == {OWN: dict.fromkeys(TASKS, 4)}


def test_one_stage_may_rehearse_otherwise_than_its_directory(llama, texts, tmp_path):
    out = tmp_path / "out"
    learn(llama, out, "seq-lora", TASKS[:1])
    plain = runs.config(llama, None, method="seq-lora")
    asked = {**runs.FAST, **FEW, "neutral": str(texts)}
    learn_task(out, tiny.task("size", 12), runs.config(llama, None, asked, method="seq-lora"))
    learn_task(out, tiny.task("shape", 12), plain)
    learn_task(out, tiny.task("form", 12), runs.config(llama, None, asked, method="seq-lora"))
    assert "replay" not in ModelDirectory(out).config()["settings"]
    records = stages(out)
    assert [r.budget.get("replay") for r in records] == [None, "self", None, "self"]
    # The answers of a task are those of right after it, or none.
    assert [r.notes.get("mixed_in") for r in records] == [None, None, None, {OWN: {"size": 4}}]
    made = row(ModelDirectory(out), None)
    assert made["configuration"]["budgets"].keys() == {"size", "form"}
    assert made["configuration"]["budgets"]["size"]["replay"] == "self"


def test_a_stage_may_leave_rehearsal_out(answered, llama, tmp_path):
    shutil.copytree(answered, tmp_path / "out")
    asked = runs.config(llama, None, {**runs.FAST, "replay": "none"}, method="seq-lora")
    learn_task(tmp_path / "out", tiny.task("form", 12), asked)
    last = stages(tmp_path / "out")[-1]
    assert "mixed_in" not in last.notes
    assert last.budget["replay"] == "none"
    learn_task(tmp_path / "out", tiny.task("taste", 12))  # as the directory says
    assert stages(tmp_path / "out")[-1].notes["mixed_in"] == {OWN: dict.fromkeys(TASKS, 4)}


@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_the_base_model_writes_the_texts_where_there_is_no_file(shape, request, tmp_path):
    model = request.getfixturevalue(shape)
    asked = {"rehearsal": "soft", **FEW}
    learn(model, tmp_path / "one", "inc-lora", TASKS[:2], **asked)
    texts = kept(tmp_path / "one", 1).texts
    assert len(set(texts)) == 4
    assert all(texts)
    again = first_stages(tmp_path / "one", 1, tmp_path / "two")
    learn(model, again, "inc-lora", TASKS[:2], **asked)
    assert same_bits(tmp_path / "one", again)
    assert kept(again, 2).texts == texts


def test_by_label_each_task_is_asked_what_the_base_model_writes_about_its_labels(
    llama, monkeypatch, tmp_path
):
    told, write = [], neutral._written
    monkeypatch.setattr(neutral, "_written", lambda ctx, p, *a: told.append(p) or write(ctx, p, *a))
    asked = {**FEW, "replay": "by-label", "rehearsal": "soft"}
    learn(llama, tmp_path / "one", "seq-lora", TASKS[:2], **asked)
    found = kept(tmp_path / "one", 2)
    own = [found.written[name] for name in TASKS[:2]]
    assert [len(set(texts)) for texts in own] == [4, 4]
    assert own[0] != own[1]
    assert found.texts == []
    assert found.asked(TASKS[0]) == own[0]
    assert len(told) == 2  # once for each task
    task = tiny.task(TASKS[1]).task
    said = ContinualModel.open(tmp_path / "one").encoder.tokenizer.batch_decode(told[-1])
    for prompt, label in zip(said, (*task.labels, *task.labels), strict=False):
        assert task.instruction in prompt
        assert prompt.endswith(f"Answer: {label}\nText:")
    records = stages(tmp_path / "one")
    assert records[1].notes["mixed_in"] == {"own answers to texts by label": {TASKS[0]: 4}}
    again = first_stages(tmp_path / "one", 1, tmp_path / "two")
    learn(llama, again, "seq-lora", TASKS[:2], **asked)
    assert same_bits(tmp_path / "one", again)
    assert kept(again, 2).answers == found.answers
    learn(llama, tmp_path / "drawn", "seq-lora", TASKS[:2], **{**asked, "rehearsal": "drawn"})
    assert not same_bits(tmp_path / "one", tmp_path / "drawn")  # what it thought is found again


def test_without_labels_a_task_is_asked_neutral_texts_by_label_too(llama, tmp_path):
    (folder := tmp_path / "data").mkdir()
    stream = runs.write_stream(folder, "colour", "animal", labels=False)
    settings = {**runs.FAST, **FEW, "replay": "by-label"}
    run(runs.config(llama, stream, settings, method="seq-lora"), tmp_path / "out")
    found = kept(tmp_path / "out", 2)
    assert len(found.texts) == 4
    assert found.asked("colour") == found.asked("animal") == found.texts


def test_tasks_of_free_text_are_answered_greedily(llama, texts, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    stream = runs.write_stream(folder, "colour", "animal", labels=False)
    settings = {**runs.FAST, **FEW, "neutral": str(texts)}
    run(runs.config(llama, stream, settings, method="seq-lora"), tmp_path / "out")
    found = kept(tmp_path / "out", 1)
    assert not found.probabilities
    model = ContinualModel.open(first_stages(tmp_path / "out", 1, tmp_path / "first"))
    [data] = model.stream
    examples = [Example(data.task, text, "") for text in found.texts]
    said = [p.text for p in model.answer(examples, "colour")]
    pairs = zip(found.answers[0]["answers"], said, strict=True)
    assert all(mine.startswith(greedy) or greedy.startswith(mine) for mine, greedy in pairs)


@pytest.mark.parametrize("name", ["inc-lora", "replay", "seq-ft", "l2p", "lfpt5"])
def test_a_share_of_kept_examples_is_mixed_into_the_stages_of_any_method(name, t5, tmp_path):
    more = {"l2p": {"pool_size": 4, "prompt_length": 2}, "lfpt5": {"prompt_length": 4}}
    small = {"replay": {"buffer": 2}}.get(name, {})
    if name == "lfpt5":
        small = {**more["lfpt5"], "pseudo_samples": 0}
    learn(t5, tmp_path, name, TASKS[:2], replay=0.25, reservoir=3, **small)
    one, two = stages(tmp_path)
    own = 2 if name == "replay" else 0
    assert one.notes["kept_examples"] == {"colour": 3 + own}
    assert two.notes["kept_examples"] == {"colour": 3 + own, "size": 3 + own}
    assert two.notes["mixed_in"] == {"old examples": {"colour": 4 + own}}  # a quarter of 16
    made = row(ModelDirectory(tmp_path), None)
    assert made["needs"]["old_data"]


def test_a_general_file_is_mixed_into_every_stage_and_kept(llama, tmp_path):
    file = tmp_path / "general.jsonl"
    rows = [{"text": f"What is {i}?", "label": f"number {i}"} for i in range(9)]
    file.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    shared = {"replay": str(file), "reservoir": 5, "replay_share": 0.25}
    learn(llama, tmp_path / "out", "seq-lora", TASKS[:2], **shared)
    assert [r.notes["mixed_in"] for r in stages(tmp_path / "out")] == [
        {"general examples": {"general": 4}}  # of 16
    ] * 2
    again = first_stages(tmp_path / "out", 1, tmp_path / "again")
    assert kept(again, 1).general == kept(tmp_path / "out", 2).general
    made = row(ModelDirectory(tmp_path / "out"), None)
    assert made["configuration"]["settings"]["replay"] == "general.jsonl"
    assert not made["needs"]["old_data"]


@pytest.mark.parametrize(("others", "share", "mixed"), [(4, None, 3), (40, None, 6), (40, 0.25, 3)])
def test_in_place_of_own_examples_there_are_as_many_as_without(others, share, mixed):
    data = tiny.task("colour", 12)
    more = tiny.task("size", others).train
    own, found = together(data.train, MixedIn(more, share, instead=True), seed=3)
    assert len(own) + len(found) == 12
    assert len(found) == mixed
    assert set(own) <= set(data.train)
    assert set(found) <= set(more)
    counts = Counter(e.label for e in own)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert together(data.train, MixedIn((), share, instead=True), seed=3) == (data.train, [])


def test_at_the_same_budget_a_stage_has_as_many_steps_as_without(llama, texts, tmp_path):
    asked = {**FEW, "neutral": str(texts), "replay_budget": "same"}
    learn(llama, tmp_path, "seq-lora", TASKS[:2], **asked)
    assert [r.examples for r in stages(tmp_path)] == [12, 12]
    assert stages(tmp_path)[1].notes["mixed_in"] == {OWN: {"colour": 3}}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"replay": "slef"},
            "'replay': must be none, a share below 1, self, by-label, or a file that is there",
        ),
        ({"replay": 1.5}, "'replay': must be a share above 0 and at most 0.99"),
        ({"replay": 0.999999}, "'replay': must be a share above 0 and at most 0.99"),
        ({"replay": ""}, "'replay': must be none, a share below 1, self, by-label, or a file"),
        ({"replay": 0.5, "replay_share": 0.1}, "'replay_share' needs a file to replay"),
        ({"replay": True}, "'replay': must be none, a share"),
        (
            {"rehearsal": "soft"},
            "setting 'rehearsal' needs replay=self or by-label, and replay is none",
        ),
        ({"replay": 0.1, "neutral": "x.txt"}, "setting 'neutral' needs replay=self"),
        ({"reservoir": 7}, "setting 'reservoir' needs something to replay, and replay is none"),
        ({"replay_budget": "same"}, "setting 'replay_budget' needs something to replay"),
        ({"replay": "no/such.jsonl"}, "no/such.jsonl does not exist"),
        ({"replay": "self", "neutral": "no/such.txt"}, "no/such.txt does not exist"),
        ({"replay": "by-label", "neutral": "x.txt"}, "setting 'neutral' needs replay=self"),
    ],
)
def test_what_cannot_be_is_refused_before_a_model_is_loaded(settings, said, tmp_path):
    with pytest.raises(NloraError, match=said.replace("(", r"\(")):
        learn(tmp_path / "no-model", tmp_path / "out", "seq-lora", **settings)


def test_too_few_texts_are_told(llama, texts, tmp_path):
    asked = {"replay": "self", "neutral": str(texts)}
    with pytest.raises(NloraError, match=r"128 are wanted; give more, or .*'neutral_texts': 6"):
        learn(llama, tmp_path / "out", "seq-lora", **asked)


def test_a_base_model_that_writes_nothing_is_told_before_training(llama, monkeypatch, tmp_path):
    monkeypatch.setattr("nlora.methods.context.Context.generate", lambda *_, **__: ["", " "])
    for replay, said in (("self", "give a file of .*neutral$"), ("by-label", "take replay='self'")):
        with pytest.raises(NloraError, match=f"writes no texts by itself; {said}"):
            learn(llama, tmp_path / replay, "seq-lora", **{**FEW, "replay": replay})
        assert not stages(tmp_path / replay)


def test_without_it_nothing_is_kept_and_no_configuration_has_a_trace(learned):
    out = learned("llama", "inc-lora")
    settings = ModelDirectory(out).config()["settings"]
    assert not {"replay", "neutral", "rehearsal", "reservoir"} & settings.keys()
    assert not any((p / "state").exists() for p in (out / "stages").iterdir())
