"""`nlora history`: the stages with what they gave and cost, and what is kept of data."""

import json
import shutil

from tests.runs import tree


def asked(nlora, out):
    result = nlora("history", out, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_it_tells_of_each_stage_what_its_data_gave_then_and_gives_now(nlora, finished):
    out = finished("inc-lora").out
    before = tree(out)
    found, results = asked(nlora, out), json.loads((out / "results.json").read_text())
    assert tree(out) == before
    assert found["method"] == "inc-lora"
    assert found["bytes"] == sum(len(data) for data in before.values())
    first, second = found["stages"]
    matrix = results["accuracy_matrix"]
    assert first["tasks"][0] == {
        "name": "colour",
        "data": first["tasks"][0]["data"],
        "rows": {"train": [24, 24], "test": [6, 6]},
        "then": matrix[0][0],
        "now": matrix[1][0],
        "forgotten": results["forgetting"],
    }
    assert second["tasks"][0]["forgotten"] is None  # learned last
    assert first["when"] <= second["when"]
    assert 0 < first["update_bytes"] < first["bytes"]
    assert found["kept"] == {"test": {"colour": 6, "animal": 6}, "train": {}}
    table = nlora("history", out).stdout
    assert f"{matrix[0][0]:.1f}" in table
    assert "kept: 12 test examples (colour 6, animal 6)" in table


def test_what_a_method_keeps_of_old_data_is_listed(nlora, finished):
    out = finished("replay").out
    assert asked(nlora, out)["kept"]["train"] == {"colour": 3, "animal": 3}
    assert "6 training examples in the method's memory (colour 3," in nlora("history", out).stdout


def test_a_stage_of_an_earlier_version_has_the_time_of_its_file(nlora, finished, tmp_path):
    out = shutil.copytree(finished("inc-lora").out, tmp_path / "old")
    record = out / "stages" / "001-colour" / "stage.json"
    values = json.loads(record.read_text())
    for name in ("finished", "sha256", "manifest"):
        del values[name]
    record.write_text(json.dumps(values | {"format": 1, "updates": ["001-colour"]}))
    assert asked(nlora, out)["stages"][0]["when"].startswith("20")


def test_what_is_no_model_is_refused(refused, tmp_path):
    assert "holds no model" in refused("history", tmp_path)
