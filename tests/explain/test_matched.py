"""Answers as they were right after the task, from Python and by commands."""

import json
import shutil

import numpy as np
import pytest

from nlora.continual.answering import predict
from nlora.continual.model import ContinualModel
from nlora.errors import NloraError
from nlora.evaluation.matching import match_shares
from nlora.explain.asked import Options
from nlora.explain.examples import examples_of
from nlora.explain.explain import explain
from nlora.explain.looks import Looks
from nlora.explain.matched import matched, where_it_helps
from nlora.report.explained import SELF_WRITTEN
from nlora.store.directory import ModelDirectory
from tests.calling import call
from tests.methods.helpers import learn
from tests.runs import Listener


@pytest.fixture(scope="module")
def out(finished, tmp_path_factory):
    """A copy of a run of two tasks that has forgotten the first."""
    return shutil.copytree(finished("seq-lora").out, tmp_path_factory.mktemp("matched") / "out")


def test_answers_are_those_that_explain_has_measured(out):
    found = explain(out, Options(kinds=("train", "self"), probe=0))
    readings = {r["when"]: r["matched"] for r in found["tasks"]["colour"]["readings"]}
    tests = ContinualModel.open(out).stream[0].test
    given = predict(out, [e.text for e in tests], "colour", correct=matched)
    right = np.mean([a.answer == e.label for a, e in zip(given, tests, strict=True)])
    assert 100 * right == pytest.approx(readings["later"][SELF_WRITTEN[0]])
    plain = predict(out, [e.text for e in tests], "colour")
    assert [a.probabilities for a in plain] != [a.probabilities for a in given]
    assert all(sum(a.probabilities.values()) == pytest.approx(1) for a in given)


def test_without_training_texts_answers_are_as_they_were(llama, tmp_path):
    learn(llama, tmp_path / "out", "inc-lora", tasks=("colour",))  # of a stream without a name
    alone = matched(ContinualModel.open(tmp_path / "out"), ["colour"])["colour"]
    assert np.allclose(alone.offsets, 0, atol=1e-2)  # nothing was learned since
    assert alone.scale == pytest.approx(1, abs=1e-2)


def test_a_model_that_is_found_by_the_text_is_matched_by_its_own_answers(finished, tmp_path):
    """Both tasks are asked about the same texts, so none is found by them."""
    out = shutil.copytree(finished("de-lora").out, tmp_path / "out")
    model = ContinualModel.open(out)
    made = matched(model, ["colour", "animal"])
    for stage, data in enumerate(examples_of(model.directory, None, None, Listener()), start=1):
        scores = np.array(model.scores(data.train, data.name, stage))
        alone = match_shares(scores, np.full(3, 1 / 3))  # each label is as frequent
        assert np.allclose(made[data.name].offsets, alone.offsets, atol=1e-2)
        assert made[data.name].scale == pytest.approx(1, abs=1e-2)


def test_a_base_model_that_writes_nothing_is_said_in_one_line(out, monkeypatch):
    monkeypatch.setattr("nlora.explain.matched.self_written", lambda *asked: [])
    refused = call("predict", out, "-", "--task", "colour", "--answers", "matched", input="xxx")
    assert refused.exit_code == 2
    assert "the base model writes no texts" in refused.output


def test_the_commands_take_it_and_refuse_what_is_none(out, tmp_path):
    (texts := tmp_path / "texts.txt").write_text("xxx 1\nyyy 2\n")
    asked = ["predict", out, texts, "--task", "colour"]
    shown = call(*asked, "--answers", "matched")
    assert shown.exit_code == 0, shown.output
    rows = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [row["answer"] in row["probabilities"] for row in rows] == [True, True]
    for more, said in ((["macthed"], "did you mean 'matched'"), (["matched", "--free"], "--free")):
        refused = call(*asked, "--answers", *more)
        assert refused.exit_code == 2
        assert said in refused.output


def test_an_export_has_the_offsets_beside_the_weights(out, tmp_path):
    done = call("export", out, tmp_path / "plain", "--answers", "matched")
    assert done.exit_code == 0, done.output
    offsets = json.loads((tmp_path / "plain" / "offsets.json").read_text())
    made = matched(ContinualModel.open(out), ["colour", "animal"])
    assert set(offsets["tasks"]) == {"colour", "animal"}
    colour = offsets["tasks"]["colour"]
    assert list(colour["offsets"]) == ["a", "b", "c"]
    assert list(colour["offsets"].values()) == pytest.approx(
        made["colour"].offsets.tolist(), abs=1e-3
    )
    assert "scale * ln p" in offsets["rule"]
    card = (tmp_path / "plain" / "README.md").read_text()
    assert "offsets per label, which are in offsets.json" in card
    assert "accuracies are without the offsets of colour, animal" in card


def test_looks_in_another_precision_do_not_take_the_place_of_those_that_are_there(
    out, tmp_path, monkeypatch
):
    model = ContinualModel.open(out)
    own = Looks(model, tmp_path).place(1, "colour", "self", ".safetensors")
    monkeypatch.setattr(ModelDirectory, "precision", lambda self: "other")
    asked = Looks(model, tmp_path).place(1, "colour", "self", ".safetensors")
    precision = model.plan.run.precision
    assert (own.name, asked.name) == (
        "colour-self.safetensors",
        f"colour-self-{precision}.safetensors",
    )


def test_labels_are_matched_by_themselves_only_where_dev_says_so(out, tmp_path):
    (texts := tmp_path / "texts.txt").write_text("xxx 1\nyyy 2\n")
    model, file = ContinualModel.open(out), out / "explain" / "explained-on-dev.json"
    assert where_it_helps(model, ["colour"]) == {}  # dev was not asked
    found = explain(out, Options(kinds=("train", "self"), probe=0))
    now = found["tasks"]["colour"]["readings"][-1]
    gain = found["tasks"]["colour"]["lost"][-1]["helps"][SELF_WRITTEN[0]]
    assert gain["value"] == pytest.approx(now["matched"][SELF_WRITTEN[0]] - now["among"])
    gain["low"] = 0.5  # as if dev had been asked
    file.write_text(json.dumps(found))
    try:
        asked = ["predict", out, texts, "--task", "colour"]
        shown, by_hand = call(*asked), call(*asked, "--answers", "matched")
        assert shown.stdout == by_hand.stdout != call(*asked, "--answers", "likely").stdout
        assert "which on dev makes" in shown.stderr
        assert where_it_helps(model, ["animal"]) == {}
        gain["low"] = 0.0
        file.write_text(json.dumps(found))
        assert where_it_helps(model, ["colour"]) == {}
        gain["low"], found["committed"]["1"] = 0.5, "another time"
        file.write_text(json.dumps(found))
        assert where_it_helps(model, ["colour"]) == {}
        file.write_text("{}")
        with pytest.raises(
            NloraError, match=r"on-dev\.json: 'tasks': is missing; .*answers='likely'"
        ):
            where_it_helps(model, ["colour"])
    finally:
        file.unlink()
