import json

import pytest

from tests.runs import tree, write_stream

QUICK = ("--set", "precision=fp32", "--set", "max_new_tokens=2", "--set", "batch_size=8")


@pytest.fixture
def command(llama, tmp_path):
    stream = write_stream(tmp_path, "colour", "animal")
    return (
        *("run", "--stream", stream, "--method", "inc-lora", "--model", llama),
        *("--out", tmp_path / "out", *QUICK),
    )


def test_a_run_prints_the_matrix_and_the_metrics(nlora, command):
    result = nlora(*command, "--evaluate", "next")
    assert result.exit_code == 0, result.stderr
    for row in ("zero-shot", "after colour", "after animal"):
        assert row in result.stdout
    for metric in ("average accuracy", "learning accuracy", "forgetting", "forward transfer"):
        assert metric in result.stdout
    progress = result.stderr.splitlines()
    assert any(line.startswith("1 colour: training 2/2") for line in progress)


def test_json_is_the_results_and_nothing_else(nlora, command, tmp_path):
    result = nlora(*command, "--json")
    assert result.exit_code == 0, result.stderr
    stored = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert json.loads(result.stdout) == stored
    again = nlora(*command, "--json")
    assert json.loads(again.stdout) == stored
    assert "nothing to do" in again.stderr


def test_a_dry_run_shows_what_would_happen_and_writes_nothing(nlora, command, tmp_path):
    before = tree(tmp_path)
    result = nlora(*command, "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert "Which colour?\nOption: a, b, c \nxxx 0\nAnswer:" in result.stdout
    assert "counts in the loss: ' ' 'a' '</s>'" in result.stdout
    assert "trainable: 1,024 parameters" in result.stdout
    assert "adapted: q_proj, v_proj (PEFT's choice for llama)" in result.stdout
    assert "colour: a 4, b 4, c 4" in result.stdout
    found = json.loads(nlora(*command, "--dry-run", "--json").stdout)
    assert found["tasks"][1]["counts"] == {"d": 4, "e": 4, "f": 4}
    assert found["tasks"][1]["majority"] == pytest.approx(1 / 3)
    assert found["stages"] == [["colour", 2], ["animal", 2]]
    assert found["settings"]["batch_size"] == 8
    assert tree(tmp_path) == before


def test_a_dry_run_says_what_its_folder_has_and_refuses_what_the_run_would(
    nlora, refused, command, tmp_path
):
    out = tmp_path / "out"
    assert f"{out} holds no stage yet" in nlora(*command, "--dry-run").stdout
    assert nlora(*command).exit_code == 0
    before = tree(out)
    assert f"{out}: all 2 stages are there" in nlora(*command, "--dry-run").stdout
    assert "(seed 0, not 1)" in refused(*command, "--dry-run", "--seed", "1")
    assert tree(out) == before
    (tmp_path / "file").write_text("")
    assert "is a file" in refused(*command, "--dry-run", "--out", tmp_path / "file")


def test_the_model_json_of_a_run_repeats_it(nlora, command, tmp_path):
    assert nlora(*command, "--seed", "3").exit_code == 0
    model_json = tmp_path / "out" / "model.json"
    result = nlora("run", "--config", model_json, "--out", tmp_path / "again", "--json")
    assert result.exit_code == 0, result.stderr
    first, second = (
        json.loads((tmp_path / d / "model.json").read_text()) for d in ("out", "again")
    )
    assert first == second
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert json.loads(result.stdout)["accuracy_matrix"] == results["accuracy_matrix"]
    same = nlora("run", "--config", model_json, "--out", tmp_path / "out")
    assert "nothing to do" in same.stderr


def test_a_yaml_file_holds_a_whole_run_and_flags_win_over_it(nlora, llama, tmp_path):
    stream = write_stream(tmp_path, "colour")
    path = tmp_path / "run.yaml"
    path.write_text(
        f"model: {llama}\nmethod: n-lora\nstream: {stream}\nmax_train: 9\nmax_eval: 3\n"
        "settings:\n  precision: fp32\n  max_new_tokens: 2\n  l1: 1e-3\n"
    )
    out = tmp_path / "out"
    assert nlora("run", "--config", path, "--out", out, "--max-train", "6").exit_code == 0
    stored = json.loads((out / "model.json").read_text())
    assert (stored["max_train"], stored["max_eval"]) == (6, 3)
    assert stored["settings"]["l1"] == 0.001


def test_data_come_from_the_environment_where_no_flag_tells(
    nlora, benchmark, llama, tmp_path, monkeypatch
):
    command = ("run", "--stream", "mail", "--method", "inc-lora", "--model", llama, "--dry-run")
    monkeypatch.setenv("NLORA_DATA", str(benchmark))
    found = json.loads(nlora(*command, "--json").stdout)
    assert [(t["name"], t["train"], t["test"]) for t in found["tasks"]] == [("mail", 8, 4)]


PLUGIN = '''
from pydantic import Field

from nlora.methods.base import Method, Settings


class MineSettings(Settings):
    strength: float = Field(0.5, description="how much")


class Mine(Method):
    """A method of my own."""

    name = "mine"
    summary = "all hooks keep their defaults"
    Settings = MineSettings
'''


def test_a_method_from_a_users_file_works_like_a_built_in_one(nlora, llama, tmp_path):
    plugin = tmp_path / "plugin.py"
    plugin.write_text(PLUGIN)
    listed = json.loads(nlora("methods", "--plugin", plugin, "--json").stdout)
    assert "mine" in [m["name"] for m in listed["methods"]]
    shown = nlora("methods", "mine", "--plugin", plugin)
    assert "strength" in shown.stdout
    command = (
        *("run", "--stream", write_stream(tmp_path, "colour"), "--model", llama),
        *("--method", "mine", "--plugin", plugin, "--out", tmp_path / "out", *QUICK),
        *("--set", "strength=2"),
    )
    assert nlora(*command).exit_code == 0
    stored = json.loads((tmp_path / "out" / "model.json").read_text())
    assert stored["settings"]["strength"] == 2
    learned = nlora(
        *("learn", tmp_path / "out", "--task", tmp_path / "colour-train.jsonl"),
        *("--test", tmp_path / "colour-test.jsonl", "--json"),
    )
    assert json.loads(learned.stdout)["stages"] == ["colour", "colour-train"]
