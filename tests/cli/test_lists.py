"""The commands that list something: tables for people, and JSON and nothing else for programs."""

import json
from typing import get_args

import pytest

from nlora.backbones.catalog import find
from nlora.cli.methods import FREE
from nlora.data.download import Download
from nlora.merging.registry import consolidations
from nlora.methods.parts.sparsity import SparsityKind


def listed(result):
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    return json.loads(result.stdout)


def test_methods(nlora):
    found = {m["name"]: m for m in listed(nlora("methods", "--json"))["methods"]}
    for name in ("inc-lora", "seq-lora", "o-lora", "n-lora", "mtl", "replay", "prog-prompt", "ns"):
        assert name in found
    assert found["prog-prompt"]["needs_task_id"]
    assert found["replay"]["needs_old_data"]
    assert found["replay"]["adapter"] == "full"
    for name, mergeable in (("n-lora", True), ("de-lora", False), ("l2p", False), ("mtl", True)):
        assert found[name]["mergeable"] is mergeable
    assert found["de-lora"]["storage_grows"]
    table = nlora("methods").stdout
    assert all(name in table for name in found)


def test_the_space_of_lora_methods_is_shown_whole(nlora):
    settings = {s["name"]: s for s in listed(nlora("methods", "inc-lora", "--json"))["settings"]}
    table = nlora("methods").stdout
    for name, values in (
        ("penalty", get_args(SparsityKind)),
        ("consolidation", consolidations()),
        ("routing", ("none", "input", "task")),
    ):
        assert name in settings
        assert all(value in table for value in (name, *values))


@pytest.mark.parametrize("row", FREE)
def test_what_a_point_of_the_space_needs_is_what_it_says(nlora, row):
    for value in row["values"].split(", "):
        name = f"n-lora:{row['setting']}={value}"
        found = listed(nlora("methods", name, "--json"))
        assert found["name"] == name
        assert {s["name"]: s["default"] for s in found["settings"]}[row["setting"]] == value
        assert found["mergeable"] is (row["mergeable"] == "yes")
        assert found["storage_grows"] is ("storage per task" in row["needs"])
        assert found["needs_task_id"] is ("task identity" in row["needs"])


def test_run_settings_are_those_that_a_method_is_run_with(nlora):
    found = listed(nlora("methods", "seq-ft:batch_size=4", "--json"))["run_settings"]
    assert (found["learning_rate"], found["batch_size"]) == (1e-4, 4)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("n-lra", "did you mean 'n-lora'"),
        ("n-lora:routng=input", "did you mean 'routing'"),
        ("n-lora:routing=inputs", "routing"),
        ("inc-lora,n-lora", "2 methods; name one"),
    ],
)
def test_what_is_no_point_is_one_line(nlora, name, said):
    result = nlora("methods", name)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_one_method_has_its_settings_defaults_and_paper(nlora):
    found = listed(nlora("methods", "n-lora", "--json"))
    settings = {s["name"]: s for s in found["settings"]}
    assert settings["l1"]["default"] == 0.05
    assert all(s["description"] for s in settings.values())
    text = nlora("methods", "n-lora").stdout
    for word in ("l1_unit", "learning_rate", found["paper"], "0.05"):
        assert word in text


def test_recipes(nlora):
    found = {r["name"]: r for r in listed(nlora("methods", "--recipes", "--json"))}
    assert found["n-lora-t5-large-order-1"]["stream"] == "order-1"
    assert "l1" in found["n-lora-t5-large-order-1"]["published"]
    assert "n-lora-t5-large-order-1" in nlora("methods", "--recipes").stdout


def test_streams(nlora):
    found = listed(nlora("streams", "--json"))
    assert found["streams"]["order-1"] == ["dbpedia", "amazon", "yahoo", "agnews"]
    assert found["datasets"]["mnli"] == "NLI/MNLI"
    assert "order-6" in nlora("streams").stdout


def test_models(nlora, monkeypatch, tmp_path):
    monkeypatch.setenv("NLORA_CACHE", str(tmp_path))
    (found,) = [m for m in listed(nlora("models", "list", "--json")) if m["name"] == "smollm2-135m"]
    assert (found["fetched"], found["path"]) == (False, None)
    shown = nlora("models", "list").stdout
    assert "Apache-2.0" in shown
    assert f"tiny-t5: {find('tiny-t5').target}" in shown.splitlines()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["smollm-135m"], "did you mean 'smollm2-135m'"), (["smollm2-135m", "--source", "x"], "hub")],
    ids=str,
)
def test_a_model_that_cannot_be_fetched_is_one_line(refused, arguments, said):
    assert said in refused("models", "fetch", *arguments)


def test_env(nlora):
    found = listed(nlora("env", "--json"))
    assert {"nlora", "torch", "transformers", "peft", "python", "platform", "cores"} <= set(found)
    assert found["torch"] in nlora("env").stdout


def test_data_check_is_quiet_about_good_data(nlora, benchmark):
    found = listed(nlora("data", "check", benchmark, "--json"))
    assert [d["name"] for d in found["datasets"]] == ["mail", "shop"]
    assert found["problems"] == []
    assert "mail" in nlora("data", "check", benchmark).stdout


def test_data_check_lists_every_problem_with_status_2(nlora, benchmark):
    (benchmark / "TC/mail/test.json").unlink()
    (benchmark / "SC/shop/labels.json").write_text("{")
    result = nlora("data", "check", benchmark, "--json")
    assert result.exit_code == 2
    problems = json.loads(result.stdout)["problems"]
    assert any("test.json" in p for p in problems)
    assert any("labels.json" in p for p in problems)
    table = nlora("data", "check", benchmark)
    assert table.exit_code == 2
    assert table.stdout.count("problem: ") == len(problems)


def test_data_check_takes_the_folder_from_the_environment(nlora, refused, benchmark, monkeypatch):
    assert "folder" in refused("data", "check").lower()
    monkeypatch.setenv("NLORA_DATA", str(benchmark))
    assert nlora("data", "check").exit_code == 0


def test_data_check_of_what_a_plugin_returns(nlora, refused, tmp_path):
    plugin = tmp_path / "tickets.py"
    plugin.write_text(
        "def rows():\n    return [{'text': f'{i}', 'label': 'xy'[i % 2]} for i in range(18)]\n"
    )
    asked = ("data", "check", "tickets:rows", "--labels", "auto", "--plugin", plugin, "--json")
    assert [d["name"] for d in listed(nlora(*asked))["datasets"]] == ["rows"]
    line = refused("data", "check", "tickets:row", "--plugin", plugin)
    assert "did you mean 'tickets:rows'" in line


def test_data_check_of_a_stream_and_of_a_file(nlora, tmp_path):
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"{i},x\n{i}b,y\n" for i in range(9)))
    (tmp_path / "b.csv").write_text("text,label\n,x\n")
    found = listed(nlora("data", "check", tmp_path / "a.csv", "--json"))
    assert [(d["name"], d["counts"]) for d in found["datasets"]] == [("a", {"x": 7, "y": 7})]
    assert nlora("data", "check", tmp_path / "a.csv").stdout.count("held out for testing") == 1
    (tmp_path / "s.yaml").write_text("- {name: one, train: a.csv}\n- {name: two, train: b.csv}\n")
    result = nlora("data", "check", tmp_path / "s.yaml")
    assert result.exit_code == 2
    assert "one: x 7, y 7" in result.stdout
    assert "line 2: 'text' is empty" in result.stdout


def test_data_check_reads_a_file_as_learn_does(nlora, refused, benchmark, tmp_path):
    rows = "".join(f"Käse {i};{'gut' if i % 3 else 'schlecht'};x\n" for i in range(60))
    path = tmp_path / "cheese.csv"
    path.write_bytes(f"Meinung;Wertung;dies\n{rows};gut;x\n".encode("cp1252"))
    options = ("--encoding", "cp1252", "--columns", "text=Meinung,label=Wertung")
    assert "not UTF-8" in nlora("data", "check", path).stdout
    empty = nlora("data", "check", path, *options)
    assert "'text' is empty; --skip-bad-rows, in YAML on_bad_row: skip," in empty.stdout
    assert "data set" not in empty.stdout  # no table of nothing
    shown = nlora("data", "check", path, *options, "--skip-bad-rows")
    assert (shown.exit_code, "free" in shown.stdout) == (0, True)
    assert "answers are free text; --labels auto makes the 2 in it labels" in shown.stdout
    listed_ = listed(nlora("data", "check", path, *options, "--skip-bad-rows", "--json"))
    assert listed_["datasets"][0]["labels"] is None
    labelled = nlora("data", "check", path, *options, "--skip-bad-rows", "--labels", "auto")
    assert "free" not in labelled.stdout
    assert "did you mean 'text'" in refused("data", "check", path, "--columns", "txt=a")
    assert "options for that are of a file alone" in refused(
        "data", "check", benchmark, "--encoding", "cp1252"
    )


def test_a_label_that_is_likely_misspelt_is_told_before_training(nlora, llama, tmp_path):
    rows = "".join(f"text {i},{'positive' if i % 2 else 'negative'}\n" for i in range(60))
    (tmp_path / "a.csv").write_text(f"text,label\n{rows}one more,postive\n")
    told = "'postive' (1 of 61 rows) is nearly 'positive' (30)"
    for labels in ((), ("--labels", "auto")):
        assert told in nlora("data", "check", tmp_path / "a.csv", *labels).stdout
    new = ("--model", llama, "--method", "inc-lora", "--labels", "auto", "--dry-run")
    assert told in nlora("learn", tmp_path / "out", "--task", tmp_path / "a.csv", *new).stdout


@pytest.mark.parametrize("total", [None, 30_000_000])
def test_data_download_says_how_far_it_is_and_what_was_left_out(
    nlora, monkeypatch, tmp_path, total
):
    def download(folder, progress):
        for done in range(0, 30_000_001, 5_000_000):
            progress(done, total)
        return Download("url", "commit", {"TC/yahoo/train.json": 3}, {}), True

    monkeypatch.setattr("nlora.data.download.download", download)
    result = nlora("data", "download", tmp_path / "data")
    assert result.exit_code == 0, result.exception
    assert "TC/yahoo/train.json: 3 rows left out" in result.stdout
    assert f"the benchmark is in {tmp_path / 'data'}" in result.stdout
    assert ("30/30" if total else "20 MB") in result.stderr
