"""A stage that costs too much is scaled back, without training."""

import shutil
from dataclasses import replace

import pytest

from nlora.analysis.adapters import read_stages
from nlora.cli.guarded import show_refusal
from nlora.continual.guard import Fall, Guard, SetAside, Verdict, verdict
from nlora.continual.holding import accept
from nlora.continual.learning import learn, run
from nlora.continual.model import ContinualModel
from nlora.continual.movement import moved
from nlora.continual.repair import Repair, Try, in_words, thirds
from nlora.errors import NloraError
from nlora.plan.config import stored_config
from nlora.store.directory import ModelDirectory
from tests.runs import THOROUGH, Listener, config, tree


@pytest.fixture
def found(refused):
    """What was tried."""
    return refused.error.found["repair"]


def test_the_curve_says_what_is_kept_and_lost_at_each_scale(found):
    curve = found["curve"]
    assert curve[0]["scales"] == [1.0] * 3
    assert not curve[0]["passes"]
    assert len(curve) in (10, 11)
    plain = [one for one in curve if not one["matched"]]
    assert len(plain) == len(curve) - 1
    single = {one["scales"][0]: one for one in plain if len(set(one["scales"])) == 1}
    passing = [scale for scale, one in single.items() if one["passes"]]
    failing = [scale for scale, one in single.items() if not one["passes"]]
    assert max(passing) < min(failing) <= max(passing) + 1 / 32
    best = found["best"]
    assert best["passes"]
    assert best["new"] == max(one["new"] for one in curve if one["passes"])
    gained = curve[0]["new"] - found["without"]
    assert found["kept"] == pytest.approx((best["new"] - found["without"]) / gained)


def test_the_repaired_stage_is_the_trained_one_scaled(refused, found, tmp_path):
    whole = shutil.copytree(refused.out, tmp_path / "whole")
    out = shutil.copytree(refused.out, tmp_path / "out")
    accept(whole)
    listener = Listener()
    results = accept(out, repaired=True, progress=listener)
    scales = found["best"]["scales"]
    trained, scaled = read_stages(whole)[1], read_stages(out)[1]
    place = thirds(list(trained.shapes))
    for name in trained.shapes:
        expected = scales[place[name]] * trained.factors(name).B
        assert (expected == scaled.factors(name).B).all()
        assert (scaled.factors(name).A == trained.factors(name).A).all()
    record = ModelDirectory(out).stages()[1]
    assert record.notes["scaled"] == scales
    assert [fall["too_far"] for fall in record.notes["guard"]["falls"]] == [False]
    assert results["accuracy_matrix"][1][1] == pytest.approx(found["best"]["new"])
    model = ContinualModel.open(out)
    assert model.measured(model.evaluate(model.stream)) == record.accuracy
    assert not (out / "pending").exists()
    moves = moved(model, 2, [data for data in model.stream if data.name == "fruit"])
    assert record.kl == pytest.approx(moves, rel=1e-3)
    assert record.kl["fruit"] < ModelDirectory(whole).stages()[1].kl["fruit"]
    lost = record.notes["guard"]["falls"][0]["lost"]
    assert listener.messages[-2].startswith(f"colour: {lost:.1f} points lost of 24 tests")
    assert listener.messages[-1].endswith(f": its update is scaled back to {in_words(scales)}")


def test_auto_takes_it_only_where_the_new_task_keeps_enough(refused, found, tmp_path, monkeypatch):
    out = shutil.copytree(refused.before, tmp_path / "out")
    assert found["kept"] < 0.9
    with pytest.raises(SetAside):
        learn(out, refused.fruit, guard=Guard(5.0, repair="auto"))
    shutil.rmtree(out / "pending")
    monkeypatch.setattr("nlora.continual.judging.ENOUGH", found["kept"])
    monkeypatch.setattr(Verdict, "within", True)  # as few tests show, it loses more
    listener = Listener()
    results = learn(out, refused.fruit, progress=listener, guard=Guard(5.0, repair="auto"))
    assert any("scaled back" in line and "keeps" in line for line in listener.messages)
    repaired = shutil.copytree(refused.out, tmp_path / "repaired")
    assert accept(repaired, repaired=True)["accuracy_matrix"] == results["accuracy_matrix"]
    updates = [n for n in tree(out) if "/update/" in n]
    assert [tree(out)[n] for n in updates] == [tree(repaired)[n] for n in updates]


def test_at_the_default_bound_what_is_offered_is_within_it(refused, tmp_path):
    out = shutil.copytree(refused.before, tmp_path / "out")
    fewer = stored_config(ModelDirectory(out))
    fewer.settings["epochs"] = 4  # of eight, nothing is left within this bound
    with pytest.raises(SetAside) as error:
        learn(out, refused.fruit, fewer, guard=Guard())
    found = error.value.found
    curve, best = found["repair"]["curve"], found["repair"]["best"]
    assert found["bound"] == 2.0
    assert [one["passes"] for one in curve] == [one["lost"]["colour"][1] <= 2.0 for one in curve]
    assert not curve[0]["passes"]
    results = accept(out, repaired=True)
    [before, after] = [row[0] for row in results["accuracy_matrix"]]
    assert before - after == pytest.approx(best["lost"]["colour"][0])
    assert results["accuracy_matrix"][1][1] == best["new"] > found["repair"]["without"]


def test_a_stage_whose_scores_are_no_numbers_is_refused_in_words(refused, tmp_path, monkeypatch):
    def diverged(self, examples):
        return [[float("nan")] * len(e.task.labels) for e in examples]

    out = shutil.copytree(refused.before, tmp_path / "out")
    monkeypatch.setattr("nlora.continual.asked.Asked.scores", diverged)
    monkeypatch.setattr("nlora.continual.repair._scaled", lambda *asked: None)  # takes its time
    with pytest.raises(SetAside) as error:
        learn(out, refused.fruit, guard=Guard())
    assert "are not finite (NaN)" in error.value.found["repair"]["unmatched"]


@pytest.mark.parametrize(
    ("method", "settings", "reason"),
    [
        ("seq-lora", {}, "the stage has changed earlier updates, too"),
        ("seq-ft", {"learning_rate": 1e-3}, "the update is no LoRA adapter"),
    ],
)
def test_what_cannot_be_scaled_is_said(llama, refused, tmp_path, method, settings, reason):
    out, asked = tmp_path / "out", {**THOROUGH, **settings}
    run(config(llama, None, asked, method=method), out, stream=[refused.colour])
    with pytest.raises(SetAside) as error:
        learn(out, refused.fruit, guard=Guard(bound=0.0))
    assert error.value.found["repair"]["not"] == reason
    with pytest.raises(NloraError, match="no repair was found"):
        accept(out, repaired=True)


def test_a_task_that_its_own_new_adapter_spoils_is_told_so(llama, refused, tmp_path, capsys):
    out, colour = tmp_path / "out", refused.colour
    run(config(llama, None, {**THOROUGH, "routing": "input"}), out, stream=[colour])
    other = dict(zip("abc", "bca", strict=True))
    spoilt = {
        split: tuple(replace(e, label=other[e.label]) for e in getattr(colour, split))
        for split in ("train", "test")
    }
    with pytest.raises(SetAside) as error:
        learn(out, replace(colour, **spoilt), guard=Guard())
    found = error.value.found
    reason = "each task has an adapter of its own, and 'colour' would have the new one"
    assert found["repair"] == {"not": reason, "unmatched": "each task has an adapter of its own"}
    assert found["advice"][0].startswith("a look at the new labels: ")
    assert found["own"]["tests"] == 24  # not the 48 of both stages
    show_refusal(out, "colour", found)
    said = f"On the 24 tests of its own data it reaches {found['own']['accuracy']:.1f} %."
    assert said in capsys.readouterr().out


def test_a_loss_beyond_the_bound_that_may_be_chance_is_explained(refused, capsys):
    def shown(lost, low):
        fall = {**refused.error.found["falls"][0], "lost": 50.0, "low": 20.0, "too_far": True}
        one = {"scales": [0.5] * 3, "new": 60.0, "lost": {"colour": [lost, low, 30.0]}}
        curve = [{**one, "passes": True}]
        tried = {"without": 40.0, "curve": curve, "best": curve[0], "kept": 0.5}
        show_refusal(
            refused.out, "fruit", {**refused.error.found, "falls": [fall], "repair": tried}
        )
        return capsys.readouterr().out

    note = "A repair is in bound where its 95 % interval does not lie wholly beyond it."
    chance = shown(12.5, 0.0)
    assert "12.5" in chance
    assert "0.0 to 30.0" in chance
    assert note in chance
    assert note not in shown(1.5, 0.0)

    best = "keeps 50% of its gain"
    cost = "colour loses 12.5 points of 24 tests, too few to tell"
    assert f"gains most: 'fruit' {best}, and {cost}. To discard it loses nothing" in chance
    assert f"--repair   lets it stand scaled back, and {cost}" in chance
    assert f"Best: 0.5; 'fruit' {best}.\n" in shown(1.5, 0.0)


def test_a_repair_that_lost_more_than_the_bound_as_measured_is_not_taken_unasked(
    refused, tmp_path, monkeypatch
):
    def lose(found):
        return replace(found, falls=[replace(f, lost=30.0, low=0.0) for f in found.falls])

    out = shutil.copytree(refused.before, tmp_path / "out")
    monkeypatch.setattr("nlora.continual.judging.ENOUGH", 0.0)
    monkeypatch.setattr("nlora.continual.repair._scaled", lambda *asked: None)
    monkeypatch.setattr("nlora.continual.repair.verdict", lambda *asked: lose(verdict(*asked)))
    with pytest.raises(SetAside) as error:
        learn(out, refused.fruit, guard=Guard(5.0, repair="auto"))
    assert error.value.found["repair"]["best"]["matched"]


def falls(lost, low=None):
    low = lost if low is None else low
    return Verdict(2.0, [Fall("a", 9, 90.0, 90.0 - lost, lost, low, lost, low > 2)])


def test_the_best_passes_gains_most_and_costs_least():
    tries = [
        Try((1.0,) * 3, 80.0, falls(30.0)),
        Try((0.5,) * 3, 60.0, falls(1.5)),
        Try((0.5, 1.0, 0.5), 60.0, falls(0.5)),
        Try((0.2,) * 3, 50.0, falls(0.0)),
    ]
    found = Repair(40.0, tries)
    assert found.best == tries[2]
    assert found.kept == 0.5
    assert Repair(60.0, tries).best is None
    assert Repair(60.0, tries).kept == 0.0


def test_what_was_measured_within_the_bound_is_better_than_what_chance_may_excuse():
    tries = [
        Try((1.0,) * 3, 80.0, falls(30.0)),
        Try((0.5,) * 3, 70.0, falls(20.0, low=0.0)),
        Try((0.2,) * 3, 50.0, falls(2.0)),
    ]
    assert Repair(40.0, tries).best == tries[2]
    assert Repair(40.0, tries[:2]).best == tries[1]


def test_a_loss_wholly_beyond_the_bound_is_never_offered_however_few_answers_it_is():
    few = Fall("a", 18, 100.0, 72.2, 27.8, 5.6, 50.0, too_far=False)  # five answers of 18
    tries = [Try((1.0,) * 3, 80.0, falls(60.0)), Try((0.5,) * 3, 70.0, Verdict(2.0, [few]))]
    found = Repair(40.0, tries)
    assert found.best is None
    assert [one["passes"] for one in found.to_json()["curve"]] == [False, False]
    chance = Verdict(2.0, [replace(few, low=0.0)])
    assert Repair(40.0, [tries[0], tries[1]._replace(verdict=chance)]).best is not None


def test_thirds_are_of_each_stack():
    names = [f"encoder.block.{i}.layer.0.q" for i in range(6)]
    names += [f"decoder.block.{i}.layer.1.q" for i in range(3)]
    assert list(thirds(names).values()) == [0, 0, 1, 1, 2, 2, 0, 1, 2]
