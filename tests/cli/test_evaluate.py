"""`nlora evaluate`: a table, or JSON; a file only where one is asked for."""

import json

from tests.runs import tree


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


def test_what_is_wrong_is_said_before_anything_is_loaded(refused, finished, tmp_path):
    out = finished("inc-lora").out
    assert "holds no model" in refused("evaluate", tmp_path)
    assert "is a folder" in refused("evaluate", out, "--out", tmp_path)
    own = out / "results.json"
    assert f"is a file of {out}" in refused("evaluate", out, "--out", own)
    assert "none.jsonl" in refused("evaluate", out, "--task", "animal", "--data", "none.jsonl")
    assert "--columns" in refused("evaluate", out, "--columns", "text=a")
