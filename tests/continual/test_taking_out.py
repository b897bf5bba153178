"""A task's update is taken out: the model is the sum of the others, also for what comes later."""

import json
import shutil

import pytest
import torch

from nlora.continual.added import next_stage
from nlora.continual.answering import predict
from nlora.continual.evaluating import evaluate
from nlora.continual.history import history
from nlora.continual.learning import learn, run
from nlora.continual.model import ContinualModel
from nlora.continual.preview import preview
from nlora.continual.results import results_of
from nlora.continual.taking_back import rollback
from nlora.continual.taking_out import take_out
from nlora.data.files import read_stream
from nlora.errors import NloraError
from nlora.store.directory import ModelDirectory, StageRecord
from tests.continual.test_taking_back import fruit
from tests.methods.helpers import learn as learn_small
from tests.runs import Listener, manifests, tree, write_stream


@pytest.fixture
def copied(finished, tmp_path):
    """`copied(kind)` is a copy of a finished run over `colour` and `animal`."""
    return lambda kind: shutil.copytree(finished(kind).out, tmp_path / kind)


def changes(model):
    """What the model adds to its base, by matrix."""
    adapter = model.adapter
    updates = [*adapter.past, adapter.copy()]
    return {name: sum(u[name].delta() for u in updates) for name in updates[0]}


def last(out):
    return ModelDirectory(out).stages()[-1]


def test_the_model_is_the_sum_of_the_other_updates(copied):
    out = copied("inc-lora")
    before = tree(out)
    with ContinualModel.open(out).without(1):
        pass
    model = ContinualModel.open(out)
    second = {name: factors.delta() for name, factors in model.adapter.copy().items()}
    dry = take_out(out, "colour", dry=True)
    assert tree(out) == before
    found = take_out(out, "colour")
    assert found.rows == dry.rows
    assert (dry.stage, found.stage) == (None, 3)
    [row] = found.rows
    assert (row["task"], row["on_top"]) == ("animal", True)
    left = changes(ContinualModel.open(out))
    assert all(torch.equal(left[name], second[name]) for name in second)
    assert last(out).accuracy == {"animal": row["without"]}
    assert not (out / "stages" / "003-without-colour" / "update").exists()


def test_what_is_out_is_asked_and_counted_no_more_and_can_be_put_back(copied):
    out = copied("inc-lora")
    before, then = tree(out), evaluate(out, after="2")["tasks"]
    take_out(out, "animal")
    with pytest.raises(NloraError, match="unknown task 'animal'"):
        predict(out, ["xxx 1"], "animal")
    assert predict(out, ["xxx 1"])[0].task == "colour"
    results = json.loads((out / "results.json").read_text())
    recorded = [record.accuracy["colour"] for record in ModelDirectory(out).stages()]
    assert results["stages"] == ["colour", "animal", "without animal"]
    assert results["learning_accuracy"] == recorded[0]
    assert results["average_accuracy"] == recorded[2]
    assert results["forgetting"] == recorded[0] - recorded[2]
    states = [stage["state"] for stage in history(ModelDirectory(out))["stages"]]
    assert states == ["in force", "taken out", "in force"]
    listener = Listener()
    assert take_out(out, "animal", progress=listener).stage == 3
    assert listener.messages == [f"{out} is without 'animal' already, nothing to do"]
    with pytest.raises(NloraError, match="nothing else was learned"):
        take_out(out, "colour")
    assert [row["accuracy"] for row in evaluate(out, after="2")["tasks"]] == [then[0]["accuracy"]]
    rollback(out)
    shutil.rmtree(out / "undone")
    assert tree(out) == before


def test_learning_goes_on_without_it_and_the_task_may_be_learned_anew(copied, finished, tmp_path):
    out = copied("inc-lora")
    take_out(out, "colour")
    learn(out, fruit(tmp_path))
    record = last(out)
    assert record.index == 4
    assert manifests(out)[-1] == ["002-animal", "004-fruit"]
    assert set(record.accuracy) == {"animal", "fruit"}
    learn(out, fruit(tmp_path, "colour", start=50))
    assert manifests(out)[-1] == ["002-animal", "004-fruit", "005-colour"]
    results = json.loads((out / "results.json").read_text())
    assert results["tasks"] == ["animal", "fruit", "colour"]
    assert results["average_accuracy"] == pytest.approx(sum(last(out).accuracy.values()) / 3)
    assert [row["accuracy"] for row in evaluate(out)["tasks"]] == list(last(out).accuracy.values())
    [first, *_] = read_stream(finished("inc-lora").stream)
    assert first.name == "colour"
    assert next_stage(out, first) is not None  # what was taken out is not learned already


def test_what_was_measured_before_on_its_old_tests_is_no_transfer_to_it_learned_anew():
    def record(index, name, *tasks, **accuracy):
        kept = [{"name": task} for task in tasks]
        return StageRecord(index=index, name=name, tasks=kept, accuracy=accuracy)

    zero = record(0, "zero-shot", a=10.0, b=20.0)
    stages = [record(1, "a", "a", a=80.0, b=60.0), record(2, "b", "b", a=70.0, b=90.0)]
    assert results_of(stages, zero, [], ["a", "b"], "inc-lora")["forward_transfer"] == 40.0
    stages += [record(3, "without b", a=75.0), record(4, "b", "b", a=70.0, b=50.0)]
    stages[2].notes["taken_out"] = {"task": "b", "stages": ["002-b"]}
    found = results_of(stages, zero, [], ["a", "b"], "inc-lora")
    assert (found["forward_transfer"], found["forgetting"]) == (None, 10.0)


def test_a_dry_run_shows_what_comes_after_it(copied, tmp_path):
    out = copied("inc-lora")
    take_out(out, "colour")
    task = fruit(tmp_path)
    plan = next_stage(out, task)
    assert plan is not None
    found = preview(plan, ModelDirectory(out))
    assert [one.name for one in found.tasks] == ["fruit"]
    learn(out, task)
    assert found.stages == [("fruit", last(out).steps)]


def test_a_task_of_several_stages_is_measured_by_what_each_brought(copied, tmp_path):
    out = copied("inc-lora")
    learn(out, fruit(tmp_path, "colour", start=50))
    take_out(out, "animal")
    parts = last(out).parts["colour"]
    assert list(parts) == ["001-colour", "003-colour"]
    stages = history(ModelDirectory(out))["stages"]
    now = [stages[place]["tasks"][0]["now"] for place in (0, 2)]
    assert now == [part.accuracy for part in parts.values()]


def test_a_run_does_not_go_on_as_if_nothing_had_happened(copied, finished):
    out = copied("inc-lora")
    take_out(out, "colour")
    with pytest.raises(NloraError, match="has had colour taken out"):
        run(finished("inc-lora").config, out)


@pytest.mark.parametrize("method", ["de-lora", "inc-lora"])
def test_a_router_chooses_it_no_more(method, llama, tmp_path):
    out = tmp_path / "out"
    settings = {"routing": "input"} if method == "inc-lora" else {}
    settings |= {"replay": 0.1}
    learn_small(llama, out, method, ("colour", "size", "shape"), count=30, **settings)
    alone = evaluate(out, task="shape")["tasks"][0]["accuracy"]
    take_out(out, "colour")
    model = ContinualModel.open(out)
    assert model.method.state.by_text.stages == [2, 3]
    examples = model.method.state.rehearsal.examples  # nor is it rehearsed
    assert {row["task"]["name"] for row in examples} == {"size", "shape"}
    texts = [e.text for data in model.stream for e in data.test] + ["colour text 1"]
    assert {answer.task for answer in predict(out, texts)} <= {"size", "shape", None}
    if method == "de-lora":  # the updates stand alone
        assert evaluate(out, task="shape")["tasks"][0]["accuracy"] == alone
    else:
        with model.after(2):
            assert model.adapter.past == []  # update 2 alone is in hand


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("seq-lora", "seq-lora went on with one update, which after '002-animal' holds colour"),
        ("seq-ft", "seq-ft went on with one update"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(kind, reason, copied):
    out = copied(kind)
    before = tree(out)
    for task in ("colour", "animal"):
        with pytest.raises(NloraError, match=f"'{task}' cannot be taken out: {reason}"):
            take_out(out, task)
    assert tree(out) == before


def test_a_task_that_is_not_there_and_scaled_updates_are_refused(copied, llama, tmp_path):
    with pytest.raises(NloraError, match="unknown task 'colours'; did you mean 'colour'"):
        take_out(copied("inc-lora"), "colours")
    plugin = tmp_path / "scaled.py"
    plugin.write_text(
        "from nlora.methods.inc_lora import IncLora\n"
        "class Scaled(IncLora):\n    name = 'scaled'\n    scales_earlier = True\n"
    )
    learn_small(llama, tmp_path / "m", "scaled", ("colour", "size"), plugin=str(plugin))
    with pytest.raises(NloraError, match="numbers that scale"):
        take_out(tmp_path / "m", "colour")


def test_several_tasks_of_one_stage_are_refused(llama, tmp_path):
    learn_small(llama, tmp_path / "m", "mtl", ("colour", "size"), adapter="lora")
    with pytest.raises(NloraError, match="holds colour, size together"):
        take_out(tmp_path / "m", "colour")


def test_what_was_taken_out_twice_is_out_since_the_last_time(copied, tmp_path):
    out = copied("inc-lora")
    take_out(out, "animal")
    [animal] = read_stream(write_stream(tmp_path, "animal"))
    learn(out, animal)
    last_time = take_out(out, "animal")
    assert take_out(out, "animal").stage == last_time.stage == 5


def test_of_a_stage_that_is_held_it_is_said_that_it_fits_no_more(copied, monkeypatch):
    out, listener = copied("inc-lora"), Listener()
    monkeypatch.setattr("nlora.continual.taking_out.held", lambda directory: "003-fruit")
    take_out(out, "colour", dry=True, progress=listener)
    assert not any("is held" in message for message in listener.messages)
    take_out(out, "colour", progress=listener)
    assert "003-fruit is held, and was trained with 'colour' in the model" in listener.messages[-1]
