"""A stage that takes answers to earlier tasks to its own words is repaired by matching them."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from nlora.cli.guarded import show_refusal
from nlora.continual.adapters_out import export_adapter
from nlora.continual.answering import predict
from nlora.continual.copying import copy
from nlora.continual.evaluating import evaluate
from nlora.continual.export import export
from nlora.continual.guard import Guard, SetAside
from nlora.continual.history import history
from nlora.continual.holding import accept
from nlora.continual.learning import learn, run
from nlora.continual.model import ContinualModel
from nlora.continual.offsets import TOLD, in_force
from nlora.continual.taking_back import rollback
from nlora.continual.taking_out import take_out
from nlora.continual.verifying import verify
from nlora.data.files import read_entry
from nlora.evaluation.matching import Correction
from nlora.explain.answers import offsets_by
from nlora.explain.asked import Options
from nlora.explain.explain import explain
from nlora.explain.matched import where_it_helps
from nlora.report.schema_explained import Estimate
from nlora.store.directory import ModelDirectory
from nlora.store.records import Offsets, StageRecord
from tests.runs import THOROUGH, Listener, config, write_task


@pytest.fixture(scope="module")
def greeted(refused, llama_of_two, tmp_path_factory):
    """A directory that knows `colour`, and has then learned to answer "h" to whatever is asked,
    the refusal of which is `error`."""
    folder = tmp_path_factory.mktemp("greeted")
    entry = write_task(folder, "colour", train=24, test=24, labels=False)
    for split in ("train", "test"):
        rows = [json.loads(line) for line in (folder / entry[split]).read_text().splitlines()]
        text = "".join(json.dumps({**row, "label": "h"}) + "\n" for row in rows)
        (folder / entry[split]).write_text(text)
    (folder / "greeting.yaml").write_text(json.dumps({**entry, "name": "greeting"}))
    greeting = read_entry(folder / "greeting.yaml")
    run(config(llama_of_two, None, THOROUGH), folder / "before", stream=[refused.colour])
    out = shutil.copytree(folder / "before", folder / "out")
    with pytest.raises(SetAside) as error:
        learn(out, greeting, guard=Guard())
    held = shutil.copytree(out, folder / "held")
    results = accept(out, repaired=True)
    return SimpleNamespace(
        out=out,
        before=folder / "before",
        held=held,
        greeting=greeting,
        found=error.value.found,
        results=results,
    )


def test_the_refusal_has_it_as_a_row_that_keeps_the_whole_update(greeted, capsys):
    tried = greeted.found["repair"]
    [matched] = [one for one in tried["curve"] if one["matched"]]
    assert tried["best"] == matched
    assert matched["scales"] == [1.0] * 3
    assert matched["new"] == tried["curve"][0]["new"] == 100.0
    assert matched["lost"]["colour"][0] < tried["curve"][0]["lost"]["colour"][0] / 2
    assert tried["kept"] == 1.0
    show_refusal(greeted.held, "greeting", greeted.found)
    said = capsys.readouterr().out
    assert "1, matched " in said
    assert "--repair   lets it stand with matched answers" in said
    assert max(len(line) for line in said.splitlines() if "━" in line) <= 80


def test_auto_takes_it_since_the_new_task_keeps_all(greeted, refused, tmp_path, monkeypatch):
    monkeypatch.setattr("nlora.continual.repair._scaled", lambda *asked: None)  # takes its time
    out, listener = shutil.copytree(greeted.before, tmp_path / "out"), Listener()
    bound = greeted.found["repair"]["best"]["lost"]["colour"][0]
    guard = Guard(bound, repair="auto")
    results = learn(out, greeted.greeting, progress=listener, guard=guard)
    assert results["accuracy_matrix"] == greeted.results["accuracy_matrix"]
    assert any("answers to colour are matched, and it keeps 100%" in m for m in listener.messages)
    assert in_force(ModelDirectory(out).stages()) == in_force(ModelDirectory(greeted.out).stages())


def test_from_then_on_all_that_asks_for_a_label_has_it(greeted, tmp_path):
    record = ModelDirectory(greeted.out).stages()[-1]
    assert record.accuracy["colour"] > 50
    assert history(ModelDirectory(greeted.out))["matched"] == ["colour"]
    [again] = [task for task in evaluate(greeted.out)["tasks"] if task["task"] == "colour"]
    assert again["accuracy"] == record.accuracy["colour"]
    assert verify(greeted.out)["tasks"][0]["same"] == 24
    model = ContinualModel.open(greeted.out)
    tests = model.stream[0].test
    given = predict(greeted.out, [e.text for e in tests], "colour")
    right = 100 * sum(a.answer == e.label for a, e in zip(given, tests, strict=True)) / len(tests)
    assert right == pytest.approx(record.accuracy["colour"])
    best = [max(a.probabilities, key=a.probabilities.__getitem__) for a in given]
    assert best == [a.answer for a in given]
    free = predict(greeted.out, ["xxx 1"], "colour", free=True)
    assert free[0].answer == "h"  # what it writes is as it was trained
    copy(greeted.out, tmp_path / "handed")
    assert ModelDirectory(tmp_path / "handed").stages()[-1].matched == record.matched


def test_it_is_explained_as_the_model_answers(greeted, tmp_path):
    out = shutil.copytree(greeted.out, tmp_path / "out")
    found = explain(out, Options(kinds=("train",), probe=0, shift=0, gradients=0))
    record = ModelDirectory(out).stages()[-1]
    [later] = [r for r in found["tasks"]["colour"]["readings"] if r["when"] == "later"]
    assert later["free"] == later["among"] == pytest.approx(record.accuracy["colour"])


def test_offsets_that_help_without_them_do_not_take_their_place_unasked(greeted, monkeypatch):
    gain = Estimate(value=50.0, low=40.0, high=60.0)
    monkeypatch.setattr("nlora.explain.matched.helped", lambda *asked: {"colour": gain})
    assert where_it_helps(ContinualModel.open(greeted.out), ["colour"]) == {}


def test_exports_have_the_offsets_beside_them_and_say_so(greeted, tmp_path):
    known, listener = ModelDirectory(greeted.out).stages()[-1].matched["colour"], Listener()
    export(greeted.out, tmp_path / "plain", "float32", listener)
    export_adapter(greeted.out, tmp_path / "adapter", progress=listener)
    for folder in ("plain", "adapter"):
        written = json.loads((tmp_path / folder / "offsets.json").read_text())
        assert written["tasks"] == {"colour": known.model_dump()}
    assert listener.messages.count(TOLD) == 2
    [said] = [line for line in listener.messages if line.startswith("the model is in")]
    assert said.startswith(f"the model is in {tmp_path / 'plain'}, in float32: ")


def test_an_export_with_offsets_for_another_task_keeps_those_in_force(
    greeted, tmp_path, monkeypatch
):
    known = ModelDirectory(greeted.out).stages()[-1].matched["colour"]
    other = Correction(np.array([]), 2.0)
    monkeypatch.setattr("nlora.explain.matched.where_it_helps", lambda *asked: {"greeting": other})
    export(greeted.out, tmp_path / "plain", "float32", match=offsets_by("auto"))
    written = json.loads((tmp_path / "plain" / "offsets.json").read_text())["tasks"]
    assert written == {
        "colour": known.model_dump(),
        "greeting": {"offsets": {}, "scale": 2.0},
    }


def test_it_goes_with_its_stage(greeted, tmp_path):
    back, out = (shutil.copytree(greeted.out, tmp_path / name) for name in ("back", "out"))
    rollback(back)
    assert in_force(ModelDirectory(back).stages()) == {}
    take_out(out, "greeting")
    assert in_force(ModelDirectory(out).stages()) == {}
    assert ModelDirectory(out).stages()[-1].accuracy["colour"] == pytest.approx(200 / 3)


def test_a_task_that_is_learned_anew_is_asked_without_and_later_stages_change_nothing():
    def stage(index, task, **more):
        return StageRecord(index=index, name=task, tasks=[{"name": task}], **more)

    known = {"a": Offsets(offsets={"x": 1.0, "y": -1.0}, scale=2.0)}
    records = [stage(1, "a"), stage(2, "b", matched=known), stage(3, "c")]
    assert in_force(records) == known
    assert in_force([*records, stage(4, "a")]) == {}
    assert in_force([*records, stage(4, "a", notes={"rejected": {}})]) == known
    assert in_force(records[:1]) == {}
    out = {"task": "a", "stages": ["001-a"]}
    assert in_force([*records, stage(4, "without a", notes={"taken_out": out})]) == {}


def test_why_answers_are_not_matched_is_said(greeted, refused, tmp_path, monkeypatch):
    out = shutil.copytree(greeted.before, tmp_path / "out")
    monkeypatch.setattr("nlora.continual.repair._scaled", lambda *asked: None)
    monkeypatch.setattr("nlora.continual.rematch.self_written", lambda *asked: [])
    with pytest.raises(SetAside) as error:
        learn(out, greeted.greeting, guard=Guard())
    found = error.value.found["repair"]
    assert found["unmatched"] == "the base model writes no texts of its own to match them by"
