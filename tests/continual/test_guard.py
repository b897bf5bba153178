"""A stage that costs too much is not in force, until somebody says so."""

import random
import shutil
from dataclasses import replace

import pytest

from nlora.api.results import History
from nlora.continual.added import next_stage
from nlora.continual.agreement import stored_plan
from nlora.continual.copying import copy
from nlora.continual.forecast import forecast
from nlora.continual.guard import Fall, Guard, SetAside, Verdict, advice, verdict
from nlora.continual.history import history
from nlora.continual.holding import accept, discard
from nlora.continual.learning import learn
from nlora.continual.results import current
from nlora.continual.taking_back import rollback
from nlora.continual.tasks import learned_stages
from nlora.continual.verifying import verify
from nlora.data.task import Example, Task, TaskData
from nlora.errors import NloraError
from nlora.evaluation.answers import Prediction
from nlora.store.directory import ModelDirectory
from tests.calling import call
from tests.runs import Listener, tree


def predictions(label, *texts):
    return [Prediction(text, label, f"text {i}") for i, text in enumerate(texts)]


def judged(before, now, bound=2.0, metric=None):
    data = TaskData(Task("a", metric=metric), (), ())
    return verdict({"a": before}, {"a": now}, [data], bound)


def test_few_tests_do_not_decide_and_many_do():
    right, wrong = predictions("x", *"x" * 20), predictions("x", *("y" * 3 + "x" * 17))
    [fall] = judged(right, wrong).falls
    assert (fall.before, fall.now, fall.lost, fall.tests) == (100.0, 85.0, pytest.approx(15), 20)
    assert fall.low <= 2.0 < fall.high
    assert not fall.too_far
    found = judged(right * 20, wrong * 20)
    assert found.too_far == ["a"]
    assert judged(right * 20, wrong * 20, bound=15.0).too_far == []
    assert judged(predictions("x", *"xxxxx"), predictions("x", *"yyyyy")).too_far == []
    assert judged(predictions("x", *"xxxxxx"), predictions("x", *"yyyyyy")).too_far == ["a"]


@pytest.mark.parametrize(("worse", "bound"), [(11, 5.0), (17, 10.0), (7, 7.0)])
def test_what_lies_at_the_bound_is_not_beyond_it(worse, bound):
    found = judged(
        predictions("x", *"x" * 100), predictions("x", *("y" * worse + "x" * (100 - worse))), bound
    )
    [fall] = found.falls
    assert bound in (fall.low, fall.lost)
    assert (found.too_far, found.beyond) == ([], [])
    assert found.within == (worse <= bound)
    assert bool(found.untold()) == (worse > bound)


def test_a_fall_that_few_tests_cannot_show_is_told():
    found = judged(predictions("x", *"x" * 9), predictions("x", *"yyxxxxxxx"))
    assert found.untold() == [
        "a: 22.2 points lost of 9 tests, too few to tell whether more than 2 are lost; "
        "more test rows would"
    ]
    refused = judged(predictions("x", *"x" * 9), predictions("x", *"y" * 9))
    assert (refused.too_far, refused.untold()) == (["a"], [])
    assert judged(predictions("x", *"x" * 9), predictions("x", *"x" * 9)).untold() == []


def test_a_task_at_chance_whose_answers_change_at_random_is_not_lost():
    draw, labels = random.Random(0), "xy"
    before, now = (
        [Prediction(draw.choice(labels), labels[i % 2], f"text {i}") for i in range(200)]
        for _ in range(2)
    )
    found = judged(before, now)
    assert [fall.too_far for fall in found.falls] == [False]
    always = {label: [replace(p, text=label) for p in now] for label in labels}
    assert judged(always["x"], always["y"]).too_far == []


def test_a_watched_task_at_chance_that_falls_is_advised_against(refused):
    labels, plan = ("good", "bad"), stored_plan(ModelDirectory(refused.out))
    mood = Task("mood", labels=labels)
    tests = tuple(Example(mood, f"text {i}", labels[i % 2]) for i in range(20))
    plan = plan.with_stream([*plan.stream, TaskData(mood, (), tests, only_tested=True)])

    def first(before):
        fall = Fall("mood", 20, before, 0.0, before, before - 5, before + 5, too_far=True)
        return advice(plan, 2, "fruit", Verdict(2.0, [fall]))[0]

    assert first(50.0) == (
        "another task to watch: 'mood' is at 50.0 %, and one label for all would be right in "
        "50.0 %, so the model hardly knows it and what it loses may be bias alone"
    )
    assert first(55.0).startswith("fewer epochs: ")


def test_what_gets_better_and_tests_that_are_new_count_for_nothing():
    found = judged(predictions("x", *"y" * 30), predictions("x", *("x" * 30 + "z" * 40)))
    assert (found.falls[0].lost, found.falls[0].tests, found.too_far) == (-100.0, 30, [])


def test_metrics_that_are_means_are_paired_by_their_own_numbers():
    half = judged(predictions("a b", *["a b"] * 9), predictions("a b", *["x a b"] * 9))
    assert half.falls[0].lost == 100.0
    within = judged(predictions("a", *["a"] * 9), predictions("a", *["x a"] * 9), metric="contains")
    assert within.falls[0].lost == 0.0


def test_a_stage_that_costs_too_much_is_not_in_force(refused):
    out, before = refused.out, tree(refused.before)
    after = tree(out)
    assert {name: data for name, data in after.items() if not name.startswith("pending/")} == before
    assert [record.name for record in ModelDirectory(out).stages()] == ["colour"]
    found = refused.error.found
    [fall] = found["falls"]
    assert (fall["task"], fall["too_far"], fall["tests"]) == ("colour", True, 24)
    assert 2 < fall["low"] <= fall["lost"] <= fall["high"]
    turned = found["turned"]["colour"]
    assert len(turned) == 3
    assert all(t["before"] == t["label"] != t["now"] for t in turned)
    assert found["own"]["tests"] == 24
    assert found["own"]["accuracy"] > 50
    assert not any("new labels" in line for line in found["advice"])
    assert any("settings={'epochs': 4}" in line for line in found["advice"])
    assert any(line.startswith("routing") for line in found["advice"])
    assert "nlora accept" in str(refused.error)
    assert "\n" not in str(refused.error)


def test_the_same_command_says_it_again_without_training(refused, monkeypatch):
    def fails(*args, **kwargs):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("nlora.backbones.load.load", fails)
    before = tree(refused.out)
    with pytest.raises(SetAside) as again:
        learn(refused.out, refused.fruit, guard=Guard())
    assert again.value.found == refused.error.found
    with pytest.raises(NloraError, match="'fruit', which is trained and not in force"):
        learn(refused.out, refused.fruit, config_of(refused.out, epochs=1), guard=Guard())
    assert tree(refused.out) == before


def config_of(out, **settings):
    from nlora.plan.config import stored_config

    known = stored_config(ModelDirectory(out))
    return known.model_copy(update={"settings": {**known.settings, **settings}})


def test_a_dry_run_is_refused_as_learning_would_be(refused):
    with pytest.raises(NloraError, match="'fruit', which is trained and not in force"):
        next_stage(refused.out, refused.fruit)


def test_accepting_it_makes_it_the_stage_that_it_would_have_been(refused, tmp_path):
    out = shutil.copytree(refused.out, tmp_path / "out")
    plain = shutil.copytree(refused.before, tmp_path / "plain")
    listener = Listener()
    results = accept(out, progress=listener)
    unguarded = learn(plain, refused.fruit)
    assert results["accuracy_matrix"] == unguarded["accuracy_matrix"]
    assert results["stages"] == ["colour", "fruit"]
    files = {n: d for n, d in tree(plain).items() if n.startswith("stages/") and "/update/" in n}
    assert {n: d for n, d in tree(out).items() if n in files} == files
    assert not (out / "pending").exists()
    assert "'fruit' is in force now, as stage 2" in listener.messages[-1]
    assert accept(out, progress=listener) == results
    assert "nothing to do" in listener.messages[-1]
    assert learn(out, refused.fruit, progress=listener, guard=Guard()) == results
    assert "nothing to do" in listener.messages[-1]


def test_discarding_it_leaves_the_directory_as_it_was(refused, tmp_path):
    out = shutil.copytree(refused.out, tmp_path / "out")
    listener = Listener()
    discard(out, listener)
    assert tree(out) == tree(refused.before)
    discard(out, listener)
    assert "nothing to do" in listener.messages[-1]
    shown = call("accept", out)
    assert (shown.stdout, "nothing to do" in shown.stderr) == ("", True)


def test_a_held_stage_is_named_wherever_the_model_is_looked_at(refused, tmp_path):
    out = shutil.copytree(refused.out, tmp_path / "out")
    line = f"held: 002-fruit, trained and not in force: `nlora accept {out}` or `nlora discard"
    assert line in str(History(history(ModelDirectory(out))))
    shown = call("verify", out, "--sample", 0)
    assert line in shown.stdout
    assert verify(refused.before, sample=0)["held"] is None
    listener = Listener()
    assert copy(out, tmp_path / "copy", progress=listener)["held"] == "002-fruit"
    assert any(message.startswith(line) for message in listener.messages)
    weights = out / "pending/repaired/002-fruit/update/adapter_model.safetensors"
    weights.write_bytes(b"x")
    with pytest.raises(NloraError, match="changed or damaged"):
        verify(out, sample=0)
    rollback(out, progress=listener)
    assert "002-fruit is held, and was trained on top of what is set aside" in listener.messages[-1]


def test_what_no_longer_fits_is_not_accepted(refused, tmp_path):
    out = shutil.copytree(refused.out, tmp_path / "out")
    record = out / "stages/001-colour/stage.json"
    record.write_text(record.read_text() + "\n")
    with pytest.raises(NloraError, match="'fruit' was trained on top of any more"):
        accept(out)
    damaged = shutil.copytree(refused.out, tmp_path / "damaged")
    weights = damaged / "pending/as-trained/002-fruit/update/adapter_model.safetensors"
    weights.write_bytes(b"x")
    with pytest.raises(NloraError, match="changed or damaged"):
        accept(damaged)
    with pytest.raises(NloraError, match="holds no model"):
        discard(tmp_path / "none")


def test_what_costs_little_enough_stands_and_its_record_says_so(refused, tmp_path):
    out = shutil.copytree(refused.before, tmp_path / "out")
    results = learn(out, refused.fruit, guard=Guard(bound=100.0))
    assert results["stages"] == ["colour", "fruit"]
    found = ModelDirectory(out).stages()[1].notes["guard"]
    assert [fall["too_far"] for fall in found["falls"]] == [False]
    with pytest.raises(NloraError, match=r"max_forgetting takes points"):
        Guard(bound=-1.0)


def test_watched_tasks_are_judged_too(refused, tmp_path):
    out = shutil.copytree(refused.before, tmp_path / "out")
    tests = refused.colour.test
    general = TaskData(Task("general", labels=("a", "b", "c")), (), tests, only_tested=True)
    with pytest.raises(SetAside) as error:
        learn(out, refused.fruit, watch=[general], guard=Guard(repair="off"))
    assert [fall["task"] for fall in error.value.found["falls"]] == ["colour", "general"]
    assert error.value.found["repair"] == {"not": "it was not asked for"}
    assert len(ModelDirectory(out).watched()) == 1
    kept = history(ModelDirectory(out))["kept"]["test"]
    assert sum(kept.values()) == 2 * len(tests)  # colour's, and those of what is only tested
    (out / "pending" / ".DS_Store").write_bytes(b"")  # what a file manager leaves
    with ModelDirectory(out).locked():
        pass
    record = ModelDirectory(out).pending.record()
    assert record is not None
    assert set(record.kl) == {"fruit", "general"}  # how far it moved on the new and the watched one
    assert min(record.kl.values()) > 0


def test_a_watched_task_that_falls_is_not_matched(refused, tmp_path):
    out = shutil.copytree(refused.before, tmp_path / "out")
    general = TaskData(
        Task("general", labels=("a", "b", "c")), (), refused.colour.test, only_tested=True
    )
    with pytest.raises(SetAside) as error:
        learn(out, refused.fruit, watch=[general], guard=Guard())
    said = error.value.found["repair"]["unmatched"]
    assert said == "'general' is only tested, and offsets are for tasks that were learned"


def test_advice_of_a_weight_that_finds_itself_names_none(refused):
    plan = stored_plan(ModelDirectory(refused.out), {"penalty": "l1", "l1": "auto"})
    fall = Fall("colour", 20, 90.0, 0.0, 90.0, 80.0, 95.0, too_far=True)
    said = advice(plan, 2, "fruit", Verdict(2.0, [fall]))
    assert said
    assert not any("penalty" in line for line in said)


def test_what_would_be_measured_is_told_beforehand(refused):
    directory = ModelDirectory(refused.before)
    [colour] = learned_stages(directory)
    first, second, few = forecast(directory, [colour, refused.fruit], Guard())
    assert "48 tests are answered (about" in first
    assert "those of colour are compared" in first
    assert "up to 10 times as many" in second
    assert "colour (24 tests) by less than 25.0 points; more test rows" in few
    assert len(forecast(directory, [colour, refused.fruit], Guard(repair="off"))) == 2
    assert len(forecast(directory, [colour, refused.fruit], Guard(25.0))) == 2
    assert "would compare nothing" in forecast(directory, [refused.fruit], Guard())[0]


@pytest.mark.parametrize("finishes", [accept, discard])
def test_killed_before_the_results_are_written_the_stage_counts_everywhere(
    refused, tmp_path, monkeypatch, finishes
):
    whole, out = (shutil.copytree(refused.out, tmp_path / name) for name in ("whole", "out"))
    expected = accept(whole)
    with monkeypatch.context() as context:
        context.setattr(ModelDirectory, "write_results", lambda *asked: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            accept(out)
    directory = ModelDirectory(out)
    assert len(directory.results()["stages"]) == 1  # behind
    assert current(directory) == expected
    assert verify(out, sample=0)["stages"] == 2
    finishes(out)
    assert directory.results() == expected
