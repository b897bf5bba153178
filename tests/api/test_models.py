"""A model in memory does what the commands do, and what a script hands over works like a file."""

import shutil

import pytest
from transformers import LlamaForCausalLM

import nlora
from nlora.continual import answering, evaluating
from nlora.continual.model import ContinualModel
from nlora.methods.inc_lora import IncLora
from tests.finished import finish
from tests.runs import LABELS, LEARNING, Listener, tree

FAST = {**LEARNING, "epochs": 1}


def task(name, count=24, **options):
    """A task of rows in memory: the answer follows from the first letter."""
    rows = [("xyz"[i % 3] * 3 + f" {i}", LABELS[name][i % 3]) for i in range(count + 6)]
    asked = {"instruction": f"Which {name}?", "labels": LABELS[name], **options}
    return nlora.Task(name, train=rows[:count], test=rows[count:], **asked)


@pytest.fixture(scope="module")
def routed(finished):
    """A model with a router, to be read."""
    return nlora.load(finished("de-lora").out)


def test_it_answers_and_scores_as_the_commands_and_stays_as_it_is(routed, finished):
    out = finished("de-lora").out
    before = tree(out)
    texts = ["xxx 1", "yyy 2", "zzz 3"]
    answers = routed.predict(texts)
    assert list(answers) == answering.predict(out, texts)
    assert list(routed.predict("xxx 1", "animal")) == answering.predict(out, texts[:1], "animal")
    for after in (None, 1, "colour", 0):
        stage = None if after is None else str(after)
        assert routed.evaluate(after=after).to_json() == evaluating.evaluate(out, after=stage)
    assert list(routed.predict(texts)) == list(answers)
    assert tree(out) == before
    assert (routed.tasks, routed.reload()) == (["colour", "animal"], False)
    tasks = "colour (24 to train, 6 to test), animal (24 to train, 6 to test)"
    assert str(routed).startswith(f"Model('{out}', de-lora on ")
    assert str(routed).endswith(f", {tasks})")


def test_rows_to_test_with_are_a_task_a_list_or_a_file(routed, finished):
    own = finished("de-lora").stream.parent / "colour-test.jsonl"
    kept = routed.evaluate(task="colour")
    rows = [(row["text"], row["label"]) for row in kept["answers"]]
    given = nlora.Task("colour", test=rows, labels=LABELS["colour"])
    for found in (
        routed.evaluate(given),
        routed.evaluate(rows, "colour"),
        routed.evaluate(own, "colour"),
    ):
        assert found.accuracy == kept.accuracy
    with pytest.raises(nlora.NloraError, match="unknown label 'b or so'"):
        routed.evaluate([("xxx 1", "b or so")], "colour")
    with pytest.raises(nlora.NloraError, match="unknown label in tests of 'colour': 'grey'"):
        routed.evaluate(nlora.Task("colour", test=[("xxx 1", "grey")]))
    with pytest.raises(nlora.NloraError, match="of which task is data"):
        routed.evaluate(rows)


def test_a_task_of_rows_is_learned_kept_and_gone_on_from(llama, tmp_path, monkeypatch):
    out = tmp_path / "out"
    asked = {"model": llama, "method": "inc-lora", "settings": FAST}
    first = nlora.run([task("colour")], out=str(out), **asked)
    assert nlora.run([task("colour")], out=out, **asked) == first  # goes on: all is there
    with pytest.raises(nlora.NloraError, match="not what its stage was trained on"):
        nlora.run([task("colour", count=21)], out=out, **asked)
    other = shutil.copytree(out, tmp_path / "other")
    model = nlora.load(out)
    with pytest.raises(nlora.NloraError, match=r"'max_forgeting'; did you mean 'max_forgetting'"):
        model.learn(task("animal"), max_forgeting=100)
    with pytest.raises(nlora.NloraError, match="unknown option of learn 'stream'"):
        model.learn(task("animal"), stream="demo")
    model.predict("xxx 1", "colour")
    with monkeypatch.context() as patched:
        patched.setattr(ContinualModel, "begin", None)  # the base model is not loaded again
        results = model.learn(task("animal"), watch=[task("fruit")], max_forgetting=100)
    assert results.tasks == ["colour", "animal", "fruit"]
    assert model.tasks == ["colour", "animal"]
    assert [row["task"] for row in model.history.records()] == ["colour", "animal"]
    again = nlora.load(out).evaluate()  # without the script's rows
    assert again.accuracy == dict(zip(results.tasks, results["accuracy_matrix"][1], strict=True))
    assert model.evaluate().to_json() == again.to_json()
    nlora.learn(other, task("animal"), watch=[task("fruit")], max_forgetting=100)
    for file in sorted((out / "stages" / "002-animal").rglob("*.safetensors")):
        assert file.read_bytes() == (other / file.relative_to(out)).read_bytes()
    assert model.tokenizer("a").input_ids
    assert isinstance(model.model, LlamaForCausalLM)


class Stop(Listener):
    """A progress that stops when the second task is trained."""

    def start(self, title, total):
        super().start(title, total)
        if "animal" in title:
            raise KeyboardInterrupt


def test_a_run_over_rows_that_was_stopped_goes_on_with_the_same_rows(llama, tmp_path):
    asked = {"model": llama, "method": "inc-lora", "settings": FAST}
    with pytest.raises(KeyboardInterrupt):
        nlora.run([task("colour"), task("animal")], out=tmp_path / "a", progress=Stop(), **asked)
    assert nlora.load(tmp_path / "a").tasks == ["colour"]
    found = nlora.run([task("colour"), task("animal")], out=tmp_path / "a", **asked)
    whole = nlora.run([task("colour"), task("animal")], out=tmp_path / "b", **asked)
    assert found["accuracy_matrix"] == whole["accuracy_matrix"]
    updates = [sorted(tmp_path.glob(f"{out}/stages/*/update/*.safetensors")) for out in "ab"]
    assert [p.read_bytes() for p in updates[0]] == [p.read_bytes() for p in updates[1]]


def test_what_another_process_has_learned_is_taken_up(finished, tmp_path):
    out = shutil.copytree(finished("inc-lora").out, tmp_path / "out")
    model = nlora.load(out)
    nlora.learn(out, task("fruit"), settings={"epochs": 1}, max_forgetting=100)
    assert model.tasks == ["colour", "animal"]
    assert model.reload()
    fresh = nlora.load(out)
    assert model.tasks == fresh.tasks == ["colour", "animal", "fruit"]
    assert list(model.predict("xxx 1", "fruit")) == list(fresh.predict("xxx 1", "fruit"))


def test_a_stage_that_costs_too_much_is_kept_aside(llama_of_two, tmp_path):
    (tmp_path / "made").mkdir()
    finish("inc-lora", llama_of_two, tmp_path / "made")
    out = tmp_path / "made" / "out"
    model, before = nlora.load(out), nlora.load(out).results
    other = [("xxx 1", "zz"), ("yyy 2", "zz")] * 12
    harm = nlora.Task("harm", train=other, test=other[:2], instruction="Which colour?")
    options = {"settings": {"epochs": 12, "learning_rate": 0.05}, "repair": "off"}
    with pytest.raises(nlora.SetAside, match="'harm' is not in force"):
        model.learn(harm, watch=[task("fruit")], max_forgetting=0, **options)
    assert model.tasks == ["colour", "animal"]
    answers = list(model.predict(["xxx 1"], "colour"))
    assert answers == list(nlora.load(out).predict(["xxx 1"], "colour"))
    kept = shutil.copytree(out, tmp_path / "kept")
    model.discard()
    assert model.results.average_accuracy == before.average_accuracy
    accepting = nlora.load(kept)
    accepting.accept()
    assert accepting.tasks == ["colour", "animal", "harm"]


class Mine(IncLora):
    """A method of one's own."""

    name = "mine"
    summary = "as inc-lora"


def halves(answers, right):
    """A metric of one's own."""
    return (
        50.0 * sum(given == label for given, label in zip(answers, right, strict=True)) / len(right)
    )


def test_a_method_and_a_metric_of_ones_own_are_a_class_and_a_function(llama, tmp_path, registries):
    asked = {"model": llama, "settings": FAST, "out": tmp_path / "out"}
    found = nlora.run([task("colour", metric=halves)], method=Mine, **asked)
    assert (found["method"], found.average_accuracy <= 50) == ("mine", True)
    for known, first in registries:  # as in another process
        known.clear()
        known.update(first)
    with pytest.raises(nlora.NloraError, match="unknown method 'mine'"):
        nlora.load(tmp_path / "out")
    model = nlora.load(tmp_path / "out", own=[Mine, halves])
    assert model.evaluate().accuracy == {"colour": found.average_accuracy}
    with pytest.raises(nlora.NloraError, match="is no method"):
        nlora.run([task("colour")], method=dict, **asked)


def test_it_is_exported_with_its_answers(finished, tmp_path):
    model = nlora.load(finished("inc-lora").out)
    report = model.export(tmp_path / "plain")
    assert report["lost_per_cent"] < 0.01
    assert "lost_per_cent" in str(report)
    assert "q_proj" not in str(report)  # every matrix is in its records
    assert any("q_proj" in row["what"] for row in report.records())
    assert (tmp_path / "plain" / "model.safetensors").is_file()
    model.export(tmp_path / "adapter", adapter=True, rank=2)
    assert (tmp_path / "adapter" / "adapter_config.json").is_file()
    with pytest.raises(nlora.NloraError, match=r"dtype='float32' keeps them"):
        model.export(tmp_path / "coarse", dtype="bfloat16", max_lost=0.01)
