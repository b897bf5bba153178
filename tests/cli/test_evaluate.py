"""`nlora evaluate`: a table, or JSON; a file only where one is asked for."""

import json

from nlora.api.running import run
from nlora.api.tasks import Task
from tests.runs import FAST, tree


def test_figures_are_shown_and_written_where_that_is_asked(nlora, finished, tmp_path):
    out = finished("inc-lora").out
    before, recorded = tree(out), json.loads((out / "results.json").read_text())
    shown = nlora("evaluate", out, "--after", "colour")
    assert shown.exit_code == 0, shown.stderr
    assert f"{recorded['accuracy_matrix'][0][0]:.1f}" in shown.stdout
    written = tmp_path / "new" / "found.json"
    asked = nlora("evaluate", out, "--task", "animal", "--json", "--out", written)
    rows = json.loads(asked.stdout)["tasks"]
    assert rows[0]["accuracy"] == recorded["accuracy_matrix"][1][1]
    whole = json.loads(written.read_text())
    assert whole["tasks"] == rows
    assert len(whole["answers"]) == 6
    assert tree(out) == before


def test_bad_rows_are_left_out_by_the_option_that_the_refusal_names(
    nlora, refused, finished, tmp_path
):
    out, rows = finished("inc-lora").out, tmp_path / "rows.csv"
    label = json.loads((out / "stages/002-animal/stage.json").read_text())["tasks"][0]["labels"][0]
    rows.write_text("text,label\n" + f"xxx,{label}\n" * 20 + "yyy,\n")
    asked = ("evaluate", out, "--task", "animal", "--data", rows)
    assert "--skip-bad-rows" in refused(*asked)
    found = nlora(*asked, "--skip-bad-rows", "--json")
    assert json.loads(found.stdout)["tasks"][0]["examples"] == 20
    assert "1 of 21 rows left out" in found.stderr
    assert "--skip-bad-rows" in refused("evaluate", out, "--skip-bad-rows")


def test_it_is_said_where_the_task_is_told_that_tests_had_to_find(nlora, finished):
    said = "accuracy: the task is told; recorded: it is found by the text"
    out = finished("de-lora").out
    assert said in nlora("evaluate", out, "--task", "colour").stdout.splitlines()
    assert said not in nlora("evaluate", out).stdout


def test_a_metric_of_ones_own_is_needed_to_measure_and_not_to_answer(
    nlora, refused, llama, tmp_path, registries
):
    def halves(answers, labels):
        return 50.0

    halves.__module__, halves.__qualname__ = "office.measures", "halves"  # of a package elsewhere
    rows, out = [("xxx 1", "a"), ("yyy 2", "b")], tmp_path / "out"
    judged = Task("judged", train=rows, test=rows, labels="auto", metric=halves)
    run([judged], model=llama, method="inc-lora", out=out, settings=FAST)
    for known, first in registries:  # as in another process
        known.clear()
        known.update(first)
    answered = nlora("predict", out, "-", input="xxx 1\n")
    assert (answered.exit_code, answered.stdout.count("\n")) == (0, 1), answered.stderr
    for command in (["evaluate", out], ["remove", out, "judged"]):
        line = refused(*command)
        assert "metric 'office.measures:halves'" in line
        assert "--plugin FILE" in line
    (tmp_path / "measures.py").write_text("def halves(answers, labels):\n    return 25.0\n")
    measured = nlora("evaluate", out, "--plugin", tmp_path / "measures.py", "--json")
    assert [task["accuracy"] for task in json.loads(measured.stdout)["tasks"]] == [25.0]


def test_what_is_wrong_is_said_before_anything_is_loaded(refused, finished, tmp_path):
    out = finished("inc-lora").out
    assert "holds no model" in refused("evaluate", tmp_path)
    assert "is a folder" in refused("evaluate", out, "--out", tmp_path)
    own = out / "results.json"
    assert f"is a file of {out}" in refused("evaluate", out, "--out", own)
    assert "none.jsonl" in refused("evaluate", out, "--task", "animal", "--data", "none.jsonl")
    assert "--columns" in refused("evaluate", out, "--columns", "text=a")
