"""Tasks that `learn` is told to test only: they are kept with the model."""

import json
import shutil
from dataclasses import replace

import pytest
import yaml

from nlora.api.results import History
from nlora.continual.copying import copy
from nlora.continual.guard import Guard, verdict
from nlora.continual.history import history
from nlora.continual.learning import learn
from nlora.continual.model import ContinualModel
from nlora.continual.results import current
from nlora.continual.taking_back import bring_back, rollback
from nlora.continual.taking_out import take_out
from nlora.continual.tasks import only_tested
from nlora.continual.verifying import verify
from nlora.data.files import read_entry, task_from_files
from nlora.errors import NloraError
from nlora.store.directory import ModelDirectory
from tests.runs import FAST, Listener, config, tree, write_task


def entry(folder, name):
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(write_task(folder, name)))
    return read_entry(folder / f"{name}.yaml")


def general(folder, count=5, name="general"):
    path = folder / f"{name}{count}.jsonl"
    rows = [{"text": f"What is {i}?", "label": f"It is {i}"} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return task_from_files(name, None, path)


@pytest.fixture(scope="module")
def watched(llama, tmp_path_factory):
    """A new directory whose first stage watches `general`, and whose second watches nothing new."""
    folder = tmp_path_factory.mktemp("watched")
    learn(folder / "out", entry(folder, "colour"), config(llama, None), watch=[general(folder)])
    return folder / "out", learn(folder / "out", entry(folder, "animal"))


def test_it_is_measured_before_and_after_every_stage_and_in_no_average(watched):
    out, results = watched
    assert results["tasks"] == ["colour", "animal", "general"]
    assert None not in [row[2] for row in results["accuracy_matrix"]]
    last = results["accuracy_matrix"][1]
    assert results["average_accuracy"] == (last[0] + last[1]) / 2
    [kept] = ModelDirectory(out).watched()
    assert (kept.notes["after"], kept.tested) == (None, {"general": 5})
    before = kept.accuracy["general"]
    lost = {"before": before, "now": last[2], "lost": before - last[2]}
    assert results["only_tested"] == {"general": lost}
    assert ModelDirectory(out).stages()[1].tested["general"] == 5


def test_one_more_is_added_later_and_what_is_kept_is_known_again(watched, tmp_path):
    out = shutil.copytree(watched[0], tmp_path / "out")
    more = [general(tmp_path), general(tmp_path, 4, "sums")]
    results = learn(out, entry(tmp_path, "fruit"), watch=more)
    assert results["tasks"] == ["colour", "animal", "fruit", "general", "sums"]
    assert [row[4] is None for row in results["accuracy_matrix"]] == [True, True, False]
    assert [r.notes["after"] for r in ModelDirectory(out).watched()] == [None, "002-animal"]
    before = tree(out)
    assert learn(out, entry(tmp_path, "fruit"), watch=more) == results
    assert tree(out) == before


def test_history_tells_of_it(watched):
    out, results = watched
    found = History(history(ModelDirectory(out)))
    lost = results["only_tested"]["general"]
    assert found["only_tested"] == [
        {"name": "general", "before": lost["before"], "now": lost["now"]}
    ]
    said = "kept: 17 test examples (colour 6, animal 6, general 5; 1 of these tasks is only tested)"
    assert said in [note for table in found.tables() for note in table.notes]


def test_after_a_rollback_it_is_asked_of_the_model_that_is_there(watched, tmp_path, monkeypatch):
    out = shutil.copytree(watched[0], tmp_path / "out")
    learn(out, entry(tmp_path, "fruit"), watch=[general(tmp_path, 4, "sums")])
    rollback(out, "1")
    seen = {}

    def judged(before, now, *given):
        seen.update(before)
        return verdict(before, now, *given)

    monkeypatch.setattr("nlora.continual.judging.verdict", judged)
    learn(out, entry(tmp_path, "animal"), guard=Guard(100.0))
    assert seen.keys() == {"colour", "general", "sums"}
    rollback(out)
    model = ContinualModel.open(out)
    with model.over([*model.stream, *only_tested(model.directory)]):
        then = model.evaluate(only_tested(model.directory))
    assert [p.text for p in seen["sums"]] == [p.text for p in then["sums"]]


def test_one_that_the_model_does_not_know_is_told(llama, tmp_path):
    out, listener = tmp_path / "out", Listener()
    colour = replace(entry(tmp_path, "colour"), train=(), only_tested=True)
    learn(out, entry(tmp_path, "animal"), config(llama, None), listener, watch=[colour])
    said = [line for line in listener.messages if "'colour' is " in line]
    assert len(said) == 1
    assert ("can lose nothing" in said[0]) or ("one label for all would be right" in said[0])


def test_it_is_added_without_a_stage_where_the_task_is_learned(watched, tmp_path):
    out = shutil.copytree(watched[0], tmp_path / "out")
    results = learn(out, entry(tmp_path, "animal"), watch=[general(tmp_path, 4, "sums")])
    assert results["stages"] == ["colour", "animal"]
    assert results["only_tested"]["sums"]["lost"] is not None or results["accuracy_matrix"]
    assert len(ModelDirectory(out).watched()) == 2


def test_names_that_clash_are_one_line(watched, llama, tmp_path):
    out, before = watched[0], tree(watched[0])
    task = entry(tmp_path, "fruit")
    twice = [general(tmp_path, 4, "sums")] * 2
    for watch, said in (
        ([general(tmp_path, 4)], "watches another task named 'general'"),
        ([general(tmp_path, 4, "colour")], "'colour' is learned, so it is tested anyway"),
        ([general(tmp_path, 4, "fruit")], "'fruit' is learned, so it is tested anyway"),
        (twice, "two of the watched tasks have one name"),
    ):
        with pytest.raises(NloraError, match=said):
            learn(out, task, watch=watch)
    with pytest.raises(NloraError, match="only tests 'general'"):
        learn(out, entry(tmp_path, "general"))
    assert tree(out) == before


def test_a_directory_that_only_watches_so_far_goes_on_as_it_began(llama, tmp_path, monkeypatch):
    out, task = tmp_path / "out", entry(tmp_path, "colour")

    def stopped(*args, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("nlora.training.loop.train", stopped)
        with pytest.raises(KeyboardInterrupt):
            learn(out, task, config(llama, None), watch=[general(tmp_path)])
    with pytest.raises(NloraError, match="different configuration"):
        learn(out, task, config(llama, None, {**FAST, "rank": 2}))
    assert learn(out, task)["stages"] == ["colour"]
    assert len(ModelDirectory(out).watched()) == 1


def test_it_stays_in_the_results_of_a_copy_and_after_a_rollback(watched, tmp_path):
    out = shutil.copytree(watched[0], tmp_path / "out")
    learn(out, entry(tmp_path, "animal"), watch=[general(tmp_path, 4, "sums")])
    copy(out, tmp_path / "copy")
    for path in (out, tmp_path / "copy"):
        assert ModelDirectory(path).results()["tasks"] == ["colour", "animal", "general", "sums"]
    learn(out, entry(tmp_path, "fruit"))
    rollback(out)
    assert ModelDirectory(out).results()["tasks"] == ["colour", "animal", "general", "sums"]


def test_a_stage_that_comes_back_is_learned_and_no_longer_only_tested(watched, tmp_path):
    out = shutil.copytree(watched[0], tmp_path / "out")
    rollback(out)
    again = general(tmp_path, 4, "animal")
    learn(out, entry(tmp_path, "fruit"), watch=[again])
    rollback(out)
    bring_back(out, 1)
    results = ModelDirectory(out).results()
    assert results["tasks"].count("animal") == 1
    assert list(results["only_tested"]) == ["general"]
    assert [one["name"] for one in history(ModelDirectory(out))["only_tested"]] == ["general"]
    assert [data.name for data in only_tested(ModelDirectory(out))] == ["general"]


def test_one_that_was_taken_out_of_the_model_can_be_watched(watched, tmp_path):
    out = shutil.copytree(watched[0], tmp_path / "out")
    take_out(out, "animal")
    for _ in range(2):
        learn(out, entry(tmp_path, "colour"), watch=[general(tmp_path, 4, "animal")])
        assert [data.name for data in only_tested(ModelDirectory(out))] == ["general", "animal"]
    assert len(ModelDirectory(out).watched()) == 2
    results = learn(out, entry(tmp_path, "fruit"))
    assert results["only_tested"].keys() == {"general", "animal"}


def test_what_was_changed_of_it_is_found(watched, tmp_path):
    out = shutil.copytree(watched[0], tmp_path / "out")
    assert verify(out, sample=0)["held"] is None
    (out / "watched/001-general/predictions.jsonl").write_text("{}")
    (out / "watched/001-general/more.txt").write_text("?")
    with pytest.raises(NloraError) as error:
        verify(out, sample=0)
    assert [fault.split("/001-general/")[1].split(" ")[0] for fault in error.value.faults] == [
        "predictions.jsonl",
        "more.txt",
    ]


def test_one_that_was_kept_before_a_kill_is_in_the_results_again(watched, tmp_path):
    out = shutil.copytree(watched[0], tmp_path / "out")
    results = (out / "results.json").read_bytes()
    learn(out, entry(tmp_path, "animal"), watch=[general(tmp_path, 4, "sums")])
    whole = ModelDirectory(out).results()
    (out / "results.json").write_bytes(results)  # it was killed before writing them
    assert current(ModelDirectory(out))["tasks"] == whole["tasks"]
